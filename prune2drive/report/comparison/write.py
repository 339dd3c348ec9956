"""Writes the files of a comparison."""

from __future__ import annotations

from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.report.charts import Chart
from prune2drive.report.comparison.charts import camera_heat, front_charts, kind_heat
from prune2drive.report.comparison.findings import Findings
from prune2drive.report.comparison.page import page
from prune2drive.report.comparison.tables import markdown, to_csv, to_tex

CHARTS = "charts"


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
    try:
        (folder / CHARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    write_atomically(folder / "comparison.md", [f"{line}\n" for line in markdown(found)])
    write_atomically(folder / "comparison.csv", [to_csv(found)])
    write_atomically(folder / "comparison.tex", [to_tex(found)])
    for chart in _charts(found):
        chart.save(folder / CHARTS)
    write_atomically(folder / "comparison.html", [page(found)])
    return folder / "comparison.html"


def _charts(found: Findings) -> list[Chart]:
    heats = [heat.chart() for heat in (kind_heat(found), camera_heat(found)) if heat]
    return [*front_charts(found).values(), *heats]
