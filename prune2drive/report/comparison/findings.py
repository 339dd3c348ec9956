"""Holds everything that a comparison's files are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.metrics.base import Column
from prune2drive.metrics.efficiency import budget_share
from prune2drive.metrics.intervals import Interval
from prune2drive.report.columns import BUDGETS, spread
from prune2drive.report.comparison.differences import Differences, choose_baseline, differences, same_budget
from prune2drive.report.comparison.questions import Questions, read_questions
from prune2drive.report.comparison.runs import Fault, Run, common_options, find_runs
from prune2drive.results.run_folder import FULL


@dataclass(frozen=True)
class Findings:
    """A comparison of runs.

    Args:
        runs: the baseline, then the other runs by falling budget and score, in which order everything shows them.
        baseline: the one that the others are compared with.
        faults: what could not be read, and why.
        questions: the scores by question that are compared; None where there are none.
        differences: what follows from them.
        unpaired: why no run has scores by question; empty where some have.
    """

    runs: tuple[Run, ...]
    baseline: Run
    faults: tuple[Fault, ...]
    questions: Questions | None
    differences: Differences | None
    unpaired: str = ""

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Key of metrics.json -> the columns of a comparison that some run has a value for."""
        return _columns(self.runs)

    @cached_property
    def worth(self) -> str | None:
        """The key of what runs are ranked by: the first share that is compared."""
        return _worth(self.columns)

    @property
    def costs(self) -> dict[str, Column]:
        """The columns of which less is better."""
        return {key: column for key, column in self.columns.items() if column.is_cost}

    @property
    def budget_axis(self) -> str:
        """What the budgets of the runs count, in words."""
        axes = {(run.run.get("config") or {}).get("budget_axis", "final") for run in self.runs}
        return " or ".join(sorted(BUDGETS.get(axis, axis) for axis in axes))

    @cached_property
    def common(self) -> dict[str, str]:
        """The options that all runs share."""
        return common_options(self.runs)

    @property
    def differs_from_score(self) -> bool:
        """Whether the scores by question are others than what the runs are ranked by."""
        scores = self.differences.score if self.differences else {}
        return any(abs(score - self.worth_of(run)) > 1e-9 for run, score in scores.items())

    def worth_of(self, run: Run) -> float:
        """Returns what a run is ranked by; below all others where it lacks it."""
        return run.metrics.get(self.worth or "", -math.inf)

    def interval(self, run: Run, key: str) -> Interval | None:
        """Returns a metric with its 95 % interval; None where its error is unknown."""
        return spread(run.metrics, key, self.columns[key])

    def count(self, key: str) -> str:
        """Returns how many numbers a metric is the mean of, in each run: `8`, or `8 to 16`; empty where unknown."""
        found = sorted({int(run.metrics[f"{key}_n"]) for run in self.runs if f"{key}_n" in run.metrics})
        return " to ".join(f"{count:,}" for count in dict.fromkeys((found[0], found[-1]))) if found else ""


def find(paths: Sequence[Path], baseline: str | None = None, is_strict: bool = False) -> Findings | None:
    """Compares the runs of these folders; None where none of them can be read.

    Where no run is without pruning, the one that a run made to compare itself with is one more run.

    Args:
        paths: run folders, and folders of them.
        baseline: the label, options or folder of the run that the others are compared with.
        is_strict: whether runs that share no question are refused.

    Raises:
        InputError: no run goes by the baseline's name, or the runs share no question.
    """
    runs, faults = find_runs(paths)
    if runs and not any(run.is_full for run in runs):
        runs = _with_unpruned(runs)
    if not runs:
        if is_strict:
            raise InputError("; ".join(map(str, faults)) or "no run folder is given")
        return None
    chosen = choose_baseline(runs, baseline)
    runs = ranked(runs, chosen)
    try:
        questions, unpaired = read_questions(runs)
    except InputError as error:
        if is_strict:
            raise
        return Findings(tuple(runs), chosen, tuple(faults), None, None, str(error))
    reasons = {fault.reason for fault in unpaired}
    if len(unpaired) == len(runs) and len(reasons) == 1:
        return Findings(tuple(runs), chosen, tuple(faults), None, None, *reasons)
    faults += unpaired
    if not questions or chosen not in questions.runs:
        why = f"{chosen.label} has no scores by question" if questions else "one run alone has scores by question"
        return Findings(tuple(runs), chosen, tuple(faults), None, None, why)
    return Findings(tuple(runs), chosen, tuple(faults), questions, differences(questions, chosen))


def ranked(runs: Sequence[Run], baseline: Run) -> list[Run]:
    """Returns the baseline, then the other runs by falling budget and score; those of no known budget are last."""
    shares = [budget_share(run.metrics) for run in runs]
    budgets = same_budget(shares)
    order = {runs[place]: number for number, places in enumerate(budgets) for place in places}
    worth = _worth(_columns(runs)) or ""

    def place(run: Run) -> tuple[bool, int, float]:
        budget = order.get(run, len(budgets) if budget_share(run.metrics) is None else -1)
        return run is not baseline, budget, -run.metrics.get(worth, -math.inf)

    return sorted(runs, key=place)


def _columns(runs: Sequence[Run]) -> dict[str, Column]:
    declared = {key: column for run in runs for key, column in run.columns.items() if column.in_comparison}
    return {key: column for key, column in declared.items() if any(key in run.metrics for run in runs)}


def _worth(columns: Mapping[str, Column]) -> str | None:
    return next((key for key, column in columns.items() if column.is_share), None)


def _with_unpruned(runs: list[Run]) -> list[Run]:
    """Returns the runs and the first un-pruned run inside one of their folders, if there is any."""
    for run in runs:
        if (run.path / FULL / "metrics.json").is_file():
            found, _ = find_runs([run.path / FULL, *(each.path for each in runs)])
            if len(found) == len(runs) + 1:
                return found
    return runs
