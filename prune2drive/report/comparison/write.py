"""Writes the files of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.report.charts import Chart
from prune2drive.report.comparison.charts import about_camera_heat, camera_heat, kind_heat
from prune2drive.report.comparison.findings import Findings
from prune2drive.report.comparison.page import page, sections
from prune2drive.report.comparison.tables import markdown, to_csv, to_tex
from prune2drive.report.explorer import explorer
from prune2drive.report.page import Section

CHARTS = "charts"
MOST, QUESTIONS = 8, 300  # runs and questions in the token explorer


def write_comparison(found: Findings, folder: Path) -> Path:
    """Writes `comparison.md`, `.csv`, `.tex` and `.html`, and each chart as PNG and SVG into `charts/`.

    Args:
        found: the comparison.
        folder: where to; it is made if it is missing.

    Returns:
        The path of the page.

    Raises:
        InputError: the folder cannot be written.
    """
    shown = sections(found, folder)
    save_charts(
        folder,
        shown,
        [heat.chart() for heat in (kind_heat(found), about_camera_heat(found), camera_heat(found)) if heat],
    )
    write_atomically(folder / "comparison.md", [f"{line}\n" for line in markdown(found)])
    write_atomically(folder / "comparison.csv", [to_csv(found)])
    write_atomically(folder / "comparison.tex", [to_tex(found)])
    write_atomically(folder / "comparison.html", [page(found, shown, explorer(explored(found), QUESTIONS))])
    return folder / "comparison.html"


def explored(found: Findings) -> dict[str, Path]:
    """Returns the runs whose tokens the page shows: the baseline, and the best of each budget rather than others."""
    budgets = found.differences.budgets if found.differences else ()
    first = (found.baseline, *(budget.best for budget in budgets), *found.runs)
    chosen = list(dict.fromkeys(first))[:MOST]
    return {run.label: run.path for run in found.runs if run in chosen}


def save_charts(folder: Path, sections: Sequence[Section], others: Sequence[Chart] = ()) -> None:
    """Writes the charts of a page as PNG and SVG into `charts/` of a folder, both of which are made if missing.

    Args:
        folder: where to.
        sections: the page's parts.
        others: further charts.

    Raises:
        InputError: the folder cannot be written.
    """
    try:
        (folder / CHARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    for chart in (*(chart for section in sections for chart in section.charts), *others):
        chart.save(folder / CHARTS)
