"""Compares many runs at once: paired differences whose intervals hold together, and Pareto fronts.

With 20 methods one of the usual 95 % intervals misses by chance. Here all intervals of a family hold together in 95 %
of experiments, by the single-step max-t bootstrap (Westfall and Young, Resampling-Based Multiple Testing, 1993,
chapter 2; Dudoit and van der Laan, Multiple Testing Procedures with Applications to Genomics, 2008, chapter 4). Whole
groups are drawn, such as scenes, for all comparisons at once; the 95 % quantile of the largest deviation among them is
the half width of every interval, both in standard errors. Comparisons that move together, as those with one baseline
do, widen each other's intervals less than by Bonferroni's or Holm's correction.

Such an interval is as wide above the difference as below it, however close to its limit the difference is: if 97 of
100 answers are lost, it may reach below -100 points. It is therefore cut to the differences that are possible. The
true difference is one of them, so that an interval which holds it still does, and all of a family together as often as
before. What is more than noise stays the same too, since 0 is possible.

Shape suffixes: M means, P pairs of them, G groups, N questions, R resamples, B resamples of a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune2drive.metrics.intervals import RESAMPLES, Interval

LEVEL = 0.95
LEAST = 0.0005  # half a tenth of a percentage point; less is printed as 0.0
BLOCK = 1 << 22  # numbers of a block of resamples

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


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
        """Whether the difference is more than noise: the interval holds nothing that is printed as 0."""
        return self.low >= LEAST or self.high <= -LEAST


def group_sums(values_N: Floats, group_N: NDArray[np.int64], groups: int) -> Floats:
    """Returns the sum of the values of each group; [G]."""
    return np.bincount(group_N, values_N, groups).astype(float)


def margins(
    sum_MG: Floats,
    count_MG: Floats,
    pairs: Sequence[tuple[int, int]],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    most: float = math.inf,
) -> list[Margin]:
    """Returns the differences of means, one family of simultaneous intervals; none where there are under two groups.

    Args:
        sum_MG: for each mean, the sum of each group's values.
        count_MG: for each mean, or with a single row for all, the number of values of each group. The two means of a
            pair are of the same questions.
        pairs: the places of the means to compare: the first minus the second.
        resamples: number of times that the groups are drawn anew.
        seed: seed of the draws.
        level: share of experiments in which all intervals hold.
        most: the largest difference that is possible, at which intervals are cut: 1 of scores in [0, 1].
    """
    groups = sum_MG.shape[1]
    if groups < 2 or not pairs:
        return []
    ours_P, theirs_P = np.array(pairs).T
    mean_M = sum_MG.sum(axis=1) / count_MG.sum(axis=1)
    value_P = mean_M[ours_P] - mean_M[theirs_P]
    error_P = _standard_errors(sum_MG, count_MG, mean_M, ours_P, theirs_P)
    varies_P = error_P > 0
    some = ours_P[varies_P], theirs_P[varies_P], value_P[varies_P], error_P[varies_P]
    blocks = resampled_groups(groups, resamples, seed, width=len(pairs))
    largest_R = np.sort(np.concatenate([_largest(sum_MG, count_MG, weight_BG, *some) for weight_BG in blocks]))
    half_P = np.quantile(largest_R, level) * error_P
    low_P, high_P = np.maximum(value_P - half_P, -most), np.minimum(value_P + half_P, most)
    with np.errstate(invalid="ignore", divide="ignore"):
        above_P = resamples - np.searchsorted(largest_R, np.abs(value_P) / error_P - 1e-9)
    p_P = np.where(value_P == 0, 1.0, (1 + above_P) / (1 + resamples))
    counts_P = np.broadcast_to(count_MG.sum(axis=1), len(sum_MG))[ours_P]
    numbers = zip(*(each_P.tolist() for each_P in (value_P, low_P, high_P, counts_P, p_P)), strict=True)
    return [Margin(value, low, high, int(count), p) for value, low, high, count, p in numbers]


def _standard_errors(sum_MG: Floats, count_MG: Floats, mean_M: Floats, ours_P: Places, theirs_P: Places) -> Floats:
    """Returns the standard error of each difference, that of a ratio of sums over groups; 0 where no group differs."""
    groups = sum_MG.shape[1]
    residual_MG = (sum_MG - mean_M[:, None] * count_MG) / count_MG.sum(axis=1)[:, None]
    product_MM = residual_MG @ residual_MG.T * groups / (groups - 1)
    own_M = np.diag(product_MM)
    own_P = own_M[ours_P] + own_M[theirs_P]
    variance_P = own_P - 2 * product_MM[ours_P, theirs_P]
    error_P: Floats = np.sqrt(np.where(variance_P > 1e-12 * own_P, variance_P, 0.0))
    return error_P


def _largest(
    sum_MG: Floats,
    count_MG: Floats,
    weight_BG: Floats,
    ours_P: Places,
    theirs_P: Places,
    value_P: Floats,
    error_P: Floats,
) -> Floats:
    """Returns the largest deviation of each resample, in standard errors; a mean without a question deviates by 0."""
    groups = sum_MG.shape[1]
    with np.errstate(invalid="ignore"):
        mean_BM = (weight_BG @ sum_MG.T) / (weight_BG @ count_MG.T)
    deviation_BP = np.abs(mean_BM[:, ours_P] - mean_BM[:, theirs_P] - value_P) / error_P
    largest_B: Floats = np.nan_to_num(deviation_BP, nan=0.0).max(axis=1, initial=0.0)
    return largest_B * math.sqrt(groups / (groups - 1))


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
