"""Tables of runs in Markdown: cells that name the runs they need, and blocks between markers of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from experiments.runs import Options, Runs
from prune2drive.metrics.intervals import Interval, difference, interval
from prune2drive.metrics.simultaneous import Margin, margins
from prune2drive.report.markdown import markdown_table


def frame_of(question: str) -> str:
    """Returns the frame that a question of MiniDrive is about, from its id."""
    return question.rpartition("_")[0]


def percent(shown: Interval, sign: str = "") -> str:
    """Returns a share with its interval, in percent."""
    return f"{100 * shown.value:{sign}.1f} [{100 * shown.low:{sign}.1f}, {100 * shown.high:{sign}.1f}]"


@dataclass(frozen=True)
class Score:
    """Shows exact match in percent with its 95 % interval, or a paired difference of exact matches.

    Args:
        ours: runs whose mean is shown; they differ in their seed.
        theirs: runs whose mean is subtracted, question by question; none by default.
        only: ids of the questions that count; all by default.
    """

    ours: tuple[Options, ...]
    theirs: tuple[Options, ...] = ()
    only: frozenset[str] = frozenset()

    @property
    def needs(self) -> tuple[Options, ...]:
        """The runs that the cell is computed from."""
        return (*self.ours, *self.theirs)

    def text(self, runs: Runs) -> str:
        """Returns what the cell shows."""
        ours, theirs = (self._selected(runs.right(group)) for group in (self.ours, self.theirs))
        frames = {question: frame_of(question) for question in ours}
        return percent(difference(ours, theirs, frames), "+") if self.theirs else percent(interval(ours, frames))

    def _selected(self, right: Mapping[str, float]) -> dict[str, float]:
        return {question: share for question, share in right.items() if not self.only or question in self.only}


@dataclass(frozen=True)
class Together:
    """Shows a paired difference of exact matches with an interval that holds together with all others of its family.

    Args:
        ours: the run from which others are subtracted.
        theirs: the run that this cell subtracts.
        family: the pairs of runs whose intervals hold together, this one among them.
    """

    ours: Options
    theirs: Options
    family: tuple[tuple[Options, Options], ...]

    @property
    def needs(self) -> tuple[Options, ...]:
        """The runs that the cell is computed from."""
        return (self.ours, self.theirs)

    def text(self, runs: Runs) -> str:
        """Returns what the cell shows."""
        shown = simultaneous_margins(runs, self.family)[self.family.index((self.ours, self.theirs))]
        return percent(shown, "+")


@cache
def simultaneous_margins(runs: Runs, family: tuple[tuple[Options, Options], ...]) -> list[Margin]:
    """Returns the differences of pairs of runs over their frames; frames of different data sets are drawn apart."""
    right = {options: runs.right((options,)) for pair in family for options in pair}
    frames = sorted({frame_of(question) for shares in right.values() for question in shares})
    place = {frame: at for at, frame in enumerate(frames)}
    sums, counts = np.zeros((len(right), len(frames))), np.zeros((len(right), len(frames)))
    for row, shares in enumerate(right.values()):
        for question, share in shares.items():
            sums[row, place[frame_of(question)]] += share
            counts[row, place[frame_of(question)]] += 1
    order = list(right)
    pairs = [(order.index(ours), order.index(theirs)) for ours, theirs in family]
    return margins(sums, counts, pairs, most=1.0)


@dataclass(frozen=True)
class Cost:
    """Shows a number of a run's metrics, or the quotient of two; empty where the run has no such number.

    Args:
        run: the run; times of different runs cannot be compared.
        key: key in metrics.json.
        form: format of the number, as Python's `format` takes it.
        by: key of the divisor; none by default.
    """

    run: Options
    key: str
    form: str
    by: str = ""

    @property
    def needs(self) -> tuple[Options, ...]:
        """The runs that the cell is computed from."""
        return (self.run,)

    def text(self, runs: Runs) -> str:
        """Returns what the cell shows."""
        metrics = runs.metrics(self.run)
        return (
            format(metrics[self.key] / (metrics[self.by] if self.by else 1), self.form) if self.key in metrics else ""
        )


Cell = str | Score | Together | Cost
Table = list[list[Cell]]
"""Rows of cells; the first row is the header."""


def beside(pairs: Mapping[str, Sequence[tuple[Options, Options]]]) -> dict[str, list[Cell]]:
    """Returns for each row the score of every pair's first run, and its difference from the second if they differ.

    Args:
        pairs: name of a row -> pairs of runs. The intervals of all differences hold together.
    """
    family = tuple((own, other) for row in pairs.values() for own, other in row if own != other)
    return {
        name: [cell for pair in row for cell in (Score(pair[:1]), Together(*pair, family) if pair in family else "")]
        for name, row in pairs.items()
    }


def needed(table: Table) -> Iterator[Options]:
    """Yields the runs that a table is computed from."""
    for row in table:
        for cell in row:
            if not isinstance(cell, str):
                yield from cell.needs


def markdown(table: Table, runs: Runs) -> str:
    """Returns a table in Markdown."""
    header, *rows = [[cell if isinstance(cell, str) else cell.text(runs) for cell in row] for row in table]
    return "\n".join(markdown_table(header, rows))


def write_block(file: Path, name: str, block: str) -> None:
    """Replaces the text between `<!-- name -->` and `<!-- /name -->` in a file, if it has these markers."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    text = file.read_text(encoding="utf-8")
    file.write_text(marked.sub(lambda match: f"{match[1]}{block}\n{match[2]}", text), encoding="utf-8")
