"""The style that all pages share, in a browser."""

import pytest
from helpers.browser import check_readable, on_all_screens, opened

from prune2drive.report.charts import bars
from prune2drive.report.page import Section, render


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    wide = [["", *(f"column {number}" for number in range(12))], ["row", *(["1,234.5"] * 12)]]
    sections = [
        Section("A chart", "Drawn.", [bars("a chart", {"one": 1.0, "two": 2.0})]),
        Section("A table wider than a phone", rows=wide),
        Section("One to open", rows=wide, folded=True),
    ]
    path = tmp_path_factory.mktemp("page") / "page.html"
    facts = {"fact": "told " * 30, "x" * 60: "a_name_without_any_space_" * 20}
    path.write_text(render("sections.html", title="A page", sentence="It <is> fine.", facts=facts, sections=sections))
    return path


@on_all_screens
def test_a_page_fits_its_window_and_can_be_read_by_all(browser, file, size, scheme):
    with opened(browser, file, size, scheme) as page:
        check_readable(page)
