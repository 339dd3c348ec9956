"""Compares the runs of a multirun in one table, in the terminal and in comparison.md."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from prune2drive.files import read_json, write_atomically
from prune2drive.metrics.base import Column
from prune2drive.metrics.statistics import share_interval
from prune2drive.report.columns import BUDGETS, columns_of
from prune2drive.report.markdown import markdown_table

log = logging.getLogger(__name__)


class Job(NamedTuple):
    """A finished run of a multirun.

    Args:
        overrides: the command-line options of this run.
        run: run.json's content.
        metrics: metrics.json's content.
    """

    overrides: Sequence[str]
    run: Mapping[str, Any]
    metrics: Mapping[str, float]


class Cell(NamedTuple):
    """A value and its uncertainty, as text."""

    value: str = ""
    spread: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, self))


class Comparison(Callback):
    """Prints a table of all runs when a multirun ends, and writes it, with all errors, as comparison.md."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Makes the table from the run folders, so that runs of other processes and machines are in it.

        Raises:
            InputError: the multirun's folder cannot be written.
        """
        folder = Path(config.hydra.sweep.dir)
        jobs = [job for path in sorted(folder.glob("*/metrics.json"), key=_job_number) if (job := _read(path.parent))]
        if not jobs:
            return
        common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
        names = [" ".join(option for option in job.overrides if option not in common) for job in jobs]
        columns = _columns(jobs)
        cells = {key: [_cell(job.metrics, key, column) for job in jobs] for key, column in columns.items()}
        axes = {job.run.get("config", {}).get("budget_axis", "final") for job in jobs}
        caption = f"budget: {' or '.join(sorted(BUDGETS.get(axis, axis) for axis in axes))}"
        header = ["job", *(column.label for column in columns.values())]
        lines = [*markdown_table(header, zip(names, *cells.values(), strict=True)), "", caption]
        write_atomically(folder / "comparison.md", [f"{line}\n" for line in lines])
        console = Console()
        console.print(_table(" ".join(sorted(common)), names, columns, cells, caption))
        console.print(f"comparison: {folder / 'comparison.md'}", soft_wrap=True)


def _job_number(path: Path) -> tuple[int, str]:
    name = path.parent.name
    return (int(name) if name.isdigit() else 0, name)


def _read(folder: Path) -> Job | None:
    """Reads a run folder; None, and a warning, where that fails."""
    try:
        overrides = list(OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
        return Job(overrides, read_json(folder / "run.json"), read_json(folder / "metrics.json"))
    except (OSError, ValueError) as error:
        log.warning("%s is left out of the comparison (%s)", folder, error)
        return None


def _columns(jobs: Sequence[Job]) -> dict[str, Column]:
    """Returns the columns that any run has a value for."""
    declared = {key: column for job in jobs for key, column in columns_of(job.run).items() if column.in_comparison}
    return {key: column for key, column in declared.items() if any(key in job.metrics for job in jobs)}


def _cell(metrics: Mapping[str, float], key: str, column: Column) -> Cell:
    """Returns a share with its 95 % interval, and other values with their standard error."""
    if key not in metrics:
        return Cell()
    value, stderr = metrics[key], metrics.get(f"{key}_stderr")
    if column.is_share and stderr is not None:
        return Cell(*f"{share_interval(value, stderr):.3f}".split(" ", maxsplit=1))
    return Cell(f"{value:.3g}", f"± {stderr:.1g}" if stderr else "")


def _table(
    title: str, names: Sequence[str], columns: Mapping[str, Column], cells: Mapping[str, Sequence[Cell]], caption: str
) -> Table:
    """Returns the table for a narrow terminal: values alone, of shares only the first, and no column twice."""
    table = Table(title=title or None, caption=caption, box=SIMPLE, pad_edge=False)
    table.add_column("job")
    shares = [key for key, column in columns.items() if column.is_share]
    shown: list[list[str]] = []
    for key, column in columns.items():
        values = [cell.value for cell in cells[key]]
        if key not in shares[1:] and values not in shown:
            table.add_column(column.label, justify="right", no_wrap=True)
            shown.append(values)
    for name, *values in zip(names, *shown, strict=True):
        table.add_row(name.replace("ratios.", ""), *values)
    return table
