"""Writes a comparison as tables: Markdown and TeX to read, CSV with every digit, and one for the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from prune2drive.metrics.base import Column
from prune2drive.metrics.efficiency import budget_share
from prune2drive.metrics.intervals import share_interval
from prune2drive.metrics.simultaneous import Margin
from prune2drive.report import numbers
from prune2drive.report.comparison.findings import Findings
from prune2drive.report.comparison.runs import Run
from prune2drive.report.markdown import markdown_table

SPECIAL = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    numbers.MINUS: "$-$",
    numbers.NBSP: "~",
}
"""Character -> what TeX prints it for, with T1 fonts."""


class Cell(NamedTuple):
    """A value and its uncertainty, as text."""

    value: str = ""
    spread: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


def markdown(found: Findings) -> list[str]:
    """Returns the lines of comparison.md: every column with its errors."""
    cells = [[_cell(run.metrics, key, column) for key, column in found.columns.items()] for run in found.runs]
    rows = [[run.job, *line] for run, line in zip(found.runs, cells, strict=True)]
    header = ["job", *(column.label for column in found.columns.values())]
    return [*markdown_table(header, rows), "", f"budget: {found.budget_axis}"]


def _cell(metrics: Mapping[str, float], key: str, column: Column) -> Cell:
    """Returns a share with its 95 % interval, and other values with their standard error."""
    if key not in metrics:
        return Cell()
    value, stderr = metrics[key], metrics.get(f"{key}_stderr")
    if column.is_share and stderr is not None:
        return Cell(*f"{share_interval(value, stderr):.3f}".split(" ", maxsplit=1))
    return Cell(f"{value:.3g}", f"± {stderr:.1g}" if stderr else "")


def terminal(found: Findings) -> Table:
    """Returns the table for a narrow terminal: short names, values alone, of shares the first, and no column twice."""
    title = " ".join(f"{name}={value}" for name, value in found.common.items())
    table = Table(title=title or None, caption=f"budget: {found.budget_axis}", box=SIMPLE, pad_edge=False)
    table.add_column("job")
    shares = [key for key, column in found.columns.items() if column.is_share]
    shown: list[list[str]] = []
    for key, column in found.columns.items():
        values = [_cell(run.metrics, key, column).value for run in found.runs]
        if column.in_terminal and key not in shares[1:] and values not in shown:
            table.add_column(column.label.replace(", ", ",\n"), justify="right", no_wrap=True)
            shown.append(values)
    for run, *values in zip(found.runs, *shown, strict=True):
        table.add_row(Text(run.label), *values)
    return table


class Told(NamedTuple):
    """A cell of the table of all runs.

    Args:
        text: what it says.
        margin: the difference that it says.
    """

    text: str = ""
    margin: Margin | None = None


def overview(found: Findings) -> list[list[Told]]:
    """Returns the table of all runs as a person reads it, the header first; no column says the same as another.

    The difference from the baseline follows what runs are ranked by.
    """
    names = [f"{run.label} (baseline)" if run is found.baseline else run.label for run in found.runs]
    columns = [[Told(name) for name in ("run", *names)]]
    for key, column in found.columns.items():
        cells = [_told(found, run, key, column) for run in found.runs]
        if cells not in [other[1:] for other in columns]:
            columns.append([Told(_header(found, key, column)), *cells])
        if key == found.worth and found.differences and found.questions:
            if found.differs_from_score:
                shares = [found.differences.score.get(run) for run in found.runs]
                told = [Told("" if share is None else numbers.percent(share)) for share in shares]
                columns.append([Told(found.questions.label), *told])
            margins = [found.differences.margin.get(run) for run in found.runs]
            header = Told(f"points against {found.baseline.label}")
            columns.append([header, *(Told(numbers.points(each), each) if each else Told() for each in margins)])
    return [list(row) for row in zip(*columns, strict=True)]


def _told(found: Findings, run: Run, key: str, column: Column) -> Told:
    if key not in run.metrics:
        return Told()
    interval = found.interval(run, key)
    return Told(numbers.ranged(interval, column) if interval else numbers.shown(run.metrics[key], column))


def _header(found: Findings, key: str, column: Column) -> str:
    """Returns a column's label, with the number of measurements where they are not all questions."""
    count = found.count(key)
    return column.label if count in ("", found.count(found.worth or "")) else f"{column.label}, n = {count}"


def to_csv(found: Findings) -> str:
    """Returns every number of a comparison as CSV: a run a line, named by keys of metrics.json."""
    keys = [key for key in found.columns if any(key in run.metrics for run in found.runs)]
    header = ["run", "options", "folder", "is_baseline", "budget_share"]
    header += [name for key in keys for name in (key, f"{key}_stderr")]
    header += ["score_by_question", "difference", "difference_low", "difference_high", "adjusted_p", "questions"]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for run in found.runs:
        numbers = [run.metrics.get(name, "") for key in keys for name in (key, f"{key}_stderr")]
        share, is_baseline = budget_share(run.metrics), int(run is found.baseline)
        about = [run.label, run.job, run.path, is_baseline, "" if share is None else share]
        writer.writerow([*about, *numbers, *_paired(found, run)])
    return file.getvalue()


def _paired(found: Findings, run: Run) -> list[float | str]:
    """Returns the numbers of a run that are told from its scores by question."""
    if not found.differences or run not in found.differences.score:
        return [""] * 6
    score, margin = found.differences.score[run], found.differences.margin.get(run)
    questions = found.questions.score_RN.shape[1] if found.questions else 0
    if margin is None:
        return [score, "", "", "", "", questions]
    return [score, margin.value, margin.low, margin.high, margin.p, questions]


def to_tex(found: Findings) -> str:
    """Returns the table of all runs in TeX, as the package booktabs has it."""
    header, *rows = [[told.text for told in row] for row in overview(found)]
    lines = [
        "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}",
        f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        "\\toprule",
        _tex_row(header),
        "\\midrule",
        *map(_tex_row, rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _tex_row(cells: Iterable[str]) -> str:
    return " & ".join(map(escape_tex, cells)) + " \\\\"


def escape_tex(text: str) -> str:
    """Returns a text as TeX prints it, in one line."""
    return "".join(SPECIAL.get(letter, letter) for letter in re.sub(r"[ \t\n\r\f\v]+", " ", text).strip(" "))


def scores_by_kind(found: Findings) -> Sequence[tuple[Run, Mapping[str, float]]]:
    """Returns every run's scores by kind of question; empty where there is one kind, or none known."""
    if not found.differences or not found.questions or len(found.questions.kinds) < 2:
        return []
    return [(run, found.differences.kind_score[run]) for run in found.runs if run in found.differences.kind_score]


def camera_budgets(found: Findings) -> tuple[list[str], list[tuple[Run, list[float | None]]]]:
    """Returns the cameras, and every run's mean number of kept tokens for each; only runs that say so."""
    kept = {run: _by_camera(run.metrics) for run in found.runs}
    cameras = list(dict.fromkeys(camera for counts in kept.values() for camera in counts))
    return cameras, [(run, [counts.get(camera) for camera in cameras]) for run, counts in kept.items() if counts]


def _by_camera(metrics: Mapping[str, float]) -> dict[str, float]:
    found = {key: re.fullmatch(r"tokens/(.+)/kept", key) for key in metrics}
    return {match[1]: metrics[key] for key, match in found.items() if match}
