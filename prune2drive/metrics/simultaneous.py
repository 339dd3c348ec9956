"""Compares many runs at once: paired differences whose intervals hold together, and Pareto fronts.

With 20 methods one of the usual 95 % intervals misses by chance. Here all intervals of a family hold together in 95 %
of experiments, by the single-step max-t bootstrap (Westfall and Young, Resampling-Based Multiple Testing, 1993,
chapter 2; Dudoit and van der Laan, Multiple Testing Procedures with Applications to Genomics, 2008, chapter 4). Whole
groups are drawn, such as scenes, for all comparisons at once; the 95 % quantile of the largest deviation among them is
the half width of every interval, both in standard errors. Comparisons that move together, as those with one baseline
do, widen each other's intervals less than by Bonferroni's or Holm's correction.

Shape suffixes: M comparisons, G groups, N questions, B resamples of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune2drive.metrics.statistics import RESAMPLES, Interval

LEVEL = 0.95
BLOCK = 1 << 22  # numbers of a block of resamples

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Margin(Interval):
    """A mean difference over n questions, with an interval that holds together with the others of its family.

    Args:
        p: share of resamples in which some deviation of the family is as large as this difference, in standard errors;
            the p value adjusted for how many are compared.
    """

    p: float = 1.0

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than noise: the interval does not hold 0."""
        return self.low > 0 or self.high < 0


def group_sums(values_N: Floats, group_N: NDArray[np.int64], groups: int) -> Floats:
    """Returns the sum of the values of each group; [G]."""
    return np.bincount(group_N, values_N, groups)


def margins(
    sum_MG: Floats, count_MG: Floats, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> list[Margin]:
    """Returns mean differences with simultaneous intervals; none where there are fewer than two groups.

    Args:
        sum_MG: for each comparison, the sum of the differences of each group's questions.
        count_MG: for each comparison, or with a single row for all, the number of questions of each group.
        resamples: number of times that the groups are drawn anew.
        seed: seed of the draws.
        level: share of experiments in which all intervals hold.
    """
    groups = sum_MG.shape[1]
    if groups < 2 or not len(sum_MG):
        return []
    total_M = np.broadcast_to(count_MG.sum(axis=1), len(sum_MG))
    value_M = sum_MG.sum(axis=1) / total_M
    error_M = np.sqrt(((sum_MG - value_M[:, None] * count_MG) ** 2).sum(axis=1)) / total_M
    varies_M = error_M > 1e-12
    scale_M = np.where(varies_M, error_M, 1.0)
    largest = np.concatenate(
        [
            _largest(sum_MG, count_MG, weight_BG, value_M, scale_M, varies_M)
            for weight_BG in resampled_groups(groups, resamples, seed, width=len(sum_MG))
        ]
    )
    half_M = np.quantile(largest, level) * error_M * np.sqrt(groups / (groups - 1))
    distance_M = np.abs(value_M) / scale_M / np.sqrt(groups / (groups - 1))
    above_M = resamples - np.searchsorted(np.sort(largest), distance_M - 1e-9)
    p_M = np.where(varies_M, (1 + above_M) / (1 + resamples), np.where(value_M == 0, 1.0, 1 / (1 + resamples)))
    return [
        Margin(value, value - half, value + half, int(total), p)
        for value, half, total, p in zip(value_M.tolist(), half_M.tolist(), total_M.tolist(), p_M.tolist(), strict=True)
    ]


def _largest(
    sum_MG: Floats, count_MG: Floats, weight_BG: Floats, value_M: Floats, scale_M: Floats, varies_M: NDArray[np.bool_]
) -> Floats:
    """Returns the largest deviation of each resample among all comparisons, in standard errors; [B]."""
    with np.errstate(invalid="ignore"):
        drawn_BM = (weight_BG @ sum_MG.T) / (weight_BG @ count_MG.T)
    deviation_BM = np.abs(drawn_BM - value_M) / scale_M
    return np.nan_to_num(deviation_BM[:, varies_M], nan=0.0).max(axis=1, initial=0.0)


def resampled_groups(groups: int, resamples: int, seed: int, width: int = 1) -> Iterator[Floats]:
    """Yields how often each group is drawn in each resample, block by block; [B, G].

    Args:
        groups: number of groups.
        resamples: number of resamples in all blocks.
        seed: seed of the draws.
        width: numbers of each resample that the caller computes, which make blocks smaller.
    """
    rng = np.random.default_rng(seed)
    size = max(1, BLOCK // max(groups, width))
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn_BG = rng.integers(groups, size=(rows, groups)) + groups * np.arange(rows)[:, None]
        yield np.bincount(drawn_BG.ravel(), minlength=rows * groups).reshape(rows, groups).astype(float)


def pareto_front(costs: Sequence[float], worths: Sequence[float]) -> list[int]:
    """Returns the places of the Pareto front, by rising cost: none costs no more and is worth more.

    Of equal points the first is in the front.
    """
    front: list[int] = []
    for place in sorted(range(len(costs)), key=lambda at: (costs[at], -worths[at], at)):
        if not front or worths[place] > worths[front[-1]]:
            front.append(place)
    return front
