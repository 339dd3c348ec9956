"""Prints a finished run in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from prune2drive.metrics.base import Column
from prune2drive.metrics.intervals import share_interval
from prune2drive.report.columns import columns_of
from prune2drive.results.run_folder import IN_FULL


def print_run(run: Mapping[str, Any], metrics: Mapping[str, float], report: Path, done: str = "answered") -> None:
    """Prints a run's metrics and counts, and where its report is.

    Args:
        run: run.json's content; its `columns` are the rows of the table.
        metrics: metrics.json's content; where it has keys under full/, the table compares both runs.
        done: the participle that says what was done to a question.
    """
    title = " · ".join(str(name) for name in run["choices"].values())
    columns = {key: column for key, column in columns_of(run).items() if column.in_run and key in metrics}
    table = _versus if any(key.startswith(IN_FULL) for key in metrics) else _alone
    counts = run["counts"]
    console = Console()
    console.print(table(title, metrics, columns))
    console.print(f"{counts['done']} of {counts['planned']} questions {done}, {counts['failed']} failed")
    if run["is_noise"]:
        console.print("The model's weights are random: its answers and scores are noise, only counts mean something.")
    console.print(f"report: {report}", soft_wrap=True)


def _alone(title: str, metrics: Mapping[str, float], columns: Mapping[str, Column]) -> Table:
    """Returns a table of the metrics with their standard errors and counts."""
    table = _empty(title, "metric", "value", "± standard error", "n")
    for key, column in columns.items():
        digits = ".4f" if column.is_share else ".4g"
        stderr, count = metrics.get(f"{key}_stderr"), metrics.get(f"{key}_n")
        cells = "" if stderr is None else format(stderr, digits), "" if count is None else f"{count:.0f}"
        table.add_row(key, format(metrics[key], digits), *cells)
    return table


def _versus(title: str, metrics: Mapping[str, float], columns: Mapping[str, Column]) -> Table:
    """Returns a table of the run with all tokens beside the pruned one; shares have their 95 % interval."""
    table = _empty(title, "metric", "all tokens", "pruned")
    for key, column in columns.items():
        table.add_row(key, *(_cell(metrics, name, column) for name in (IN_FULL + key, key)))
    return table


def _empty(title: str, first: str, *others: str) -> Table:
    table = Table(title=title)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _cell(metrics: Mapping[str, float], key: str, column: Column) -> str:
    if key not in metrics:
        return ""
    if not column.is_share:
        return f"{metrics[key]:.4g}"
    stderr = metrics.get(f"{key}_stderr")
    return f"{metrics[key]:.3f}" if stderr is None else f"{share_interval(metrics[key], stderr):.3f}"
