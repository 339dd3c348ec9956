"""The page of a comparison in a browser."""

import pytest
from helpers.browser import PHONE, check_readable, on_all_screens, opened
from helpers.run_folders import run_folder

from prune2drive.report.comparison.findings import find
from prune2drive.report.comparison.write import write_comparison

pytestmark = pytest.mark.slow  # opens a browser

HOSTILE = "pruner=<script>document.title='run'</script>&\"'\u202e\x00" + "x" * 30
LONG = "pruner=" + "word " * 400


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    kinds = ("<script>document.title='kind'</script>", "a kind " * 30, *(f"kind {number}" for number in range(10)))
    right = [True] * 40 + [False] * 8
    run_folder(folder / "0", "none", [True] * 48, 1.0, 30, kinds=kinds)
    run_folder(folder / "1", "tfps", right, 0.5, 20, kinds=kinds)
    run_folder(folder / "2", "x", right[::-1], 0.5, 25, kinds=kinds, overrides=[HOSTILE, "ratios.keep=0.5"])
    run_folder(folder / "3", "x", right[8:] + right[:8], 0.1, 25, kinds=kinds, overrides=[LONG])
    return write_comparison(find([folder, folder / "<script>gone"]), folder)


@on_all_screens
def test_a_comparison_fits_its_window_and_can_be_read_by_all(browser, file, size, scheme):
    with opened(browser, file, size, scheme) as page:
        check_readable(page)
        assert page.title().startswith("Comparison of 4 runs"), "no name of a run or a kind is run as a script"


def test_every_column_can_be_reached_on_a_phone(browser, file):
    with opened(browser, file, PHONE) as page:
        hidden = page.evaluate(
            """[...document.querySelectorAll("th, td")].filter(cell => cell.offsetParent !== null)
            .filter(cell => cell.getBoundingClientRect().right > innerWidth && !cell.closest(".scroll")).length"""
        )
        boxes = page.evaluate(
            """[...document.querySelectorAll(".scroll")].filter(box => box.offsetParent !== null)
            .map(box => [box.scrollWidth > box.clientWidth, getComputedStyle(box).overflowX, box.tabIndex])"""
        )
        assert hidden == 0 and any(wider for wider, _, _ in boxes)
        assert all(style == "auto" and tab == 0 for _, style, tab in boxes)


def test_a_row_leads_to_its_runs_page_where_it_lies_beside(browser, tmp_path, no_charts):
    folder = tmp_path / "sweep"
    run_folder(folder / "0", "none", [True] * 9)
    run_folder(folder / "1", "tfps", [True, False, True] * 3, 0.5)
    (folder / "1/report.html").write_text("<title>a run's page</title>")
    with opened(browser, write_comparison(find([folder]), folder)) as page:
        links = page.locator("main a")
        assert links.all_inner_texts() == ["tfps keep=0.5"] and links.get_attribute("href") == "1/report.html"
        assert page.locator("th[scope=row]:has(a)").count() == 1
    elsewhere = write_comparison(find([folder]), tmp_path / "elsewhere")
    assert "1/report.html" not in elsewhere.read_text(encoding="utf-8")


def test_labels_of_charts_do_not_overlap(browser, file):
    with opened(browser, file) as page:
        for chart in page.query_selector_all(".charts svg"):
            boxes = chart.evaluate(
                """chart => [...chart.querySelectorAll("text")].map(text => text.getBoundingClientRect())
                .map(box => [box.left, box.top, box.right, box.bottom])"""
            )
            for at, (left, top, right, bottom) in enumerate(boxes):
                for other in boxes[:at]:
                    apart = right <= other[0] or other[2] <= left or bottom <= other[1] + 2 or other[3] <= top + 2
                    assert apart, "two labels of a chart lie on each other"
