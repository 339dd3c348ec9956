"""The style that all pages share, in a browser."""

import io

import pytest
from helpers.browser import DESK, PHONE, check_readable, on_all_screens, opened
from PIL import Image

from prune2drive.report.charts import bars
from prune2drive.report.page import Section, render

pytestmark = pytest.mark.slow  # opens a browser


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


def at_the_edges(page, box):
    """The brightness of the left and the right edge of a box, where no letter is."""
    place = box.bounding_box()
    clip = {"x": place["x"], "y": place["y"] + 1, "width": place["width"], "height": 3}
    with Image.open(io.BytesIO(page.screenshot(clip=clip))) as image:
        grey = image.convert("L")
        return grey.getpixel((1, 1)), grey.getpixel((grey.width - 2, 1))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_wide_table_shows_where_it_goes_on_and_scrolls_by_keyboard(browser, file, scheme):
    with opened(browser, file, PHONE, scheme) as page:
        box = page.get_by_role("region", name="A table wider than a phone")
        box.scroll_into_view_if_needed()
        left, right = at_the_edges(page, box)
        assert left - right >= 10, "more lies to the right"
        box.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())
        box.evaluate("box => box.scrollTo(box.scrollWidth, 0)")
        left, right = at_the_edges(page, box)
        assert right - left >= 10, "more lies to the left"
    with opened(browser, file, DESK, scheme) as page:
        left, right = at_the_edges(page, page.get_by_role("region", name="A table wider than a phone"))
        assert left == right, "all of it is there"


@on_all_screens
def test_a_page_fits_its_window_and_can_be_read_by_all(browser, file, size, scheme):
    with opened(browser, file, size, scheme) as page:
        check_readable(page)
