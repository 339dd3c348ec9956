"""Computes what a comparison says of its runs: differences from a baseline, the best of each budget, scores by kind.

Shape suffixes: R runs, K kinds, N questions, G groups, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from prune2drive.errors import InputError
from prune2drive.metrics.efficiency import budget_share
from prune2drive.metrics.simultaneous import Margin, group_sums, margins
from prune2drive.report.comparison.questions import Questions
from prune2drive.report.comparison.runs import Run

SAME = 1.03  # budgets whose shares differ by less than this factor are one
MOST = 1.0  # the largest difference of two scores by question, which lie in [0, 1]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Budget:
    """The runs that keep about the same share of the visual tokens, the best first.

    Args:
        share: the smallest of their shares.
        runs: the runs, by falling score.
        ahead: run -> the best one's score minus its own, corrected for all pairs of the budget, since which is best is
            read off the same answers.
    """

    share: float
    runs: tuple[Run, ...]
    ahead: Mapping[Run, Margin]

    @property
    def best(self) -> Run:
        """The run with the highest score."""
        return self.runs[0]

    def name(self, run: Run) -> str:
        """Returns what sets a run apart from the others of the budget."""
        names = [each.series for each in self.runs]
        return run.series if names.count(run.series) == 1 else run.label


@dataclass(frozen=True)
class Differences:
    """Everything that is told from scores by question.

    Args:
        baseline: the run that others are compared with.
        score: run -> its mean score by question.
        margin: run -> its score minus the baseline's; empty where there is one group only.
        budgets: the budgets below the whole, the largest first.
        kind_score: run -> kind of question -> mean score.
        kind_margin: run -> kind of question -> score minus the baseline's, corrected for all of this table.
    """

    baseline: Run
    score: Mapping[Run, float]
    margin: Mapping[Run, Margin]
    budgets: tuple[Budget, ...]
    kind_score: Mapping[Run, Mapping[str, float]]
    kind_margin: Mapping[Run, Mapping[str, Margin]]


def choose_baseline(runs: Sequence[Run], name: str | None = None) -> Run:
    """Returns the run that a user names, or the first without pruning, or else the first.

    Raises:
        InputError: no run has the name, or several have.
    """
    if name is None:
        return next((run for run in runs if run.is_full), runs[0])
    named = [run for run in runs if run.goes_by(name)]
    if len(named) == 1:
        return named[0]
    what = "several runs go" if named else "no run goes"
    labels = ", ".join(repr(run.label) for run in named or runs)
    raise InputError(f"--baseline {name!r}: {what} by this name; choose one of {labels}")


def differences(questions: Questions, baseline: Run) -> Differences:
    """Returns the paired differences of all runs, each family with intervals that hold together.

    Args:
        questions: scores by question.
        baseline: one of the runs.
    """
    runs = questions.runs
    kinds, groups = len(questions.kinds), questions.groups
    cell_N = questions.kind_N * groups + questions.group_N
    sum_RC = np.stack([group_sums(score_N, cell_N, kinds * groups) for score_N in questions.score_RN])
    sum_RKG: Floats = sum_RC.reshape(len(runs), kinds, groups)
    count_KG = np.bincount(cell_N, minlength=kinds * groups).reshape(kinds, groups).astype(float)
    sum_RG, count_1G = sum_RKG.sum(axis=1), count_KG.sum(axis=0)[None]
    score_R, score_RK = sum_RG.sum(axis=1) / count_1G.sum(), sum_RKG.sum(axis=2) / count_KG.sum(axis=1)
    base = runs.index(baseline)
    others = [place for place in range(len(runs)) if place != base]
    against = margins(sum_RG, count_1G, [(place, base) for place in others], most=MOST)
    by_kind = _by_kind(sum_RKG, count_KG, others, base)
    return Differences(
        baseline,
        dict(zip(runs, score_R.tolist(), strict=True)),
        {runs[place]: margin for place, margin in zip(others, against, strict=False)},
        _budgets(runs, score_R, sum_RG, count_1G),
        {run: dict(zip(questions.kinds, row, strict=True)) for run, row in zip(runs, score_RK.tolist(), strict=True)},
        {
            runs[place]: dict(zip(questions.kinds, row, strict=True))
            for place, row in zip(others, by_kind, strict=False)
        },
    )


def _by_kind(sum_RKG: Floats, count_KG: Floats, others: Sequence[int], base: int) -> list[list[Margin]]:
    """Returns the difference of every other run for every kind, one family."""
    runs, kinds, groups = sum_RKG.shape
    count_MG = np.tile(count_KG, (runs, 1))
    pairs = [(place * kinds + kind, base * kinds + kind) for place in others for kind in range(kinds)]
    found = margins(sum_RKG.reshape(-1, groups), count_MG, pairs, most=MOST)
    return [found[start : start + kinds] for start in range(0, len(found), kinds)]


def _budgets(runs: Sequence[Run], score_R: Floats, sum_RG: Floats, count_1G: Floats) -> tuple[Budget, ...]:
    """Returns the budgets of the runs that prune, each with a family of its own."""
    shares = [budget_share(run.metrics) for run in runs]
    found = []
    for places in same_budget(shares):
        ranked = sorted(places, key=lambda place: -score_R[place])
        pairs = list(combinations(ranked, 2))  # those of the best come first
        ahead = margins(sum_RG, count_1G, pairs, most=MOST)
        share = min(shares[place] or 0.0 for place in places)
        margin = {runs[other]: each for (_, other), each in zip(pairs[: len(ranked) - 1], ahead, strict=False)}
        found.append(Budget(share, tuple(runs[place] for place in ranked), margin))
    return tuple(found)


def same_budget(shares: Sequence[float | None]) -> list[list[int]]:
    """Groups places by their share of the visual tokens, the largest first, without those that keep all or none."""
    known = sorted((share, place) for place, share in enumerate(shares) if share and share < 1)
    groups: list[list[int]] = []
    least = 0.0
    for share, place in known:
        if groups and share < least * SAME:
            groups[-1].append(place)
        else:
            least = share
            groups.append([place])
    return groups[::-1]
