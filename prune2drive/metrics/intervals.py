"""Intervals of means: normal ones, Student's, and the bootstrap over groups.

Shape suffixes: N questions or samples, G groups, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune2drive.metrics.statistics import RatioOfSums

RESAMPLES, DRAWN_AT_ONCE = 10_000, 500
MANY = 500  # groups from which on an interval is a normal one


@dataclass(frozen=True)
class Interval:
    """A mean over n questions and its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def __format__(self, spec: str) -> str:
        """Returns `value [low, high]`, each number formatted by `spec`."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def share_interval(share: float, stderr: float, n: int = 0) -> Interval:
    """Returns a share with its normal 95 % interval, cut to [0, 1]: format it with `.3f` for `0.812 [0.790, 0.834]`.

    Args:
        share: a mean in [0, 1].
        stderr: the standard error of `share`.
    """
    half = 1.96 * stderr
    return Interval(share, max(0.0, share - half), min(1.0, share + half), n)


def mean_interval(value: float, stderr: float, n: int) -> Interval:
    """Returns a mean of n independent measurements with Student's 95 % interval; without width where one was made.

    Args:
        value: the mean.
        stderr: its standard error, from the spread of the measurements.
        n: their number.
    """
    half = _student(n - 1) * stderr if n > 1 else 0.0
    return Interval(value, value - half, value + half, n)


def _student(freedom: int) -> float:
    """Returns the 97.5 % quantile of Student's distribution (Abramowitz and Stegun, 1964, 26.7.5).

    The expansion is within 1 % from three degrees of freedom on.
    """
    z = 1.96
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def interval(values: Mapping[Hashable, float], groups: Mapping[Hashable, Hashable], seed: int = 0) -> Interval:
    """Returns the mean of values and its bootstrap interval, resampling whole groups.

    Questions about one frame share its images, so frames are drawn, not questions (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 8). Of more than `MANY` groups, the interval is that of a ratio of sums
    (Cochran, Sampling Techniques, 1977, section 2.11), to which the bootstrap's tends. Like the bootstrap's, it is cut
    to the range of the values, which no mean of them leaves.

    Args:
        values: question -> value; for a paired comparison, the difference between two runs.
        groups: question -> group, such as its frame.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values to take a mean of")
    values_N = np.array(list(values.values()), dtype=float)
    _, group_N = np.unique([str(groups[question]) for question in values], return_inverse=True)
    sum_G, count_G = np.bincount(group_N, weights=values_N), np.bincount(group_N)
    return _interval_of_groups(sum_G, count_G, float(values_N.min()), float(values_N.max()), seed)


def _interval_of_groups(sum_G: NDArray[Any], count_G: NDArray[Any], least: float, most: float, seed: int) -> Interval:
    """Returns the interval of a mean from the sums and counts of its groups; see `interval`.

    Args:
        sum_G: the sum of each group's values.
        count_G: the number of each group's values.
        least: the least value.
        most: the largest value.
        seed: seed of the bootstrap.
    """
    n, count = int(count_G.sum()), len(sum_G)
    centre = float(sum_G.sum() / n)
    if count > MANY:  # where drawing them takes long, and changes nothing
        squares = float(((sum_G - centre * count_G) ** 2).sum())
        half = 1.96 * math.sqrt(squares * count / (count - 1)) / n
        return Interval(centre, max(centre - half, least), min(centre + half, most), n)
    random, means = np.random.default_rng(seed), []
    for _ in range(RESAMPLES // DRAWN_AT_ONCE):
        drawn_RG = random.multinomial(count, np.full(count, 1 / count), DRAWN_AT_ONCE)
        means.append((drawn_RG @ sum_G) / (drawn_RG @ count_G))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(centre, float(low), float(high), n)


def difference(
    ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float], groups: Mapping[Hashable, Hashable], seed: int = 0
) -> Interval:
    """Returns the mean of `ours - theirs` over the questions in both, with its bootstrap interval over groups.

    Raises:
        ValueError: no question is in both.
    """
    return interval(
        {question: ours[question] - theirs[question] for question in ours if question in theirs}, groups, seed
    )


class GroupedMean:
    """The mean of numbers that arrive one at a time, with its bootstrap interval over groups, in memory for the groups.

    Groups count in the order in which they begin.
    """

    def __init__(self) -> None:
        self._sums = RatioOfSums()
        self._least, self._most = math.inf, -math.inf

    def add(self, number: float, group: str) -> None:
        """Adds a number."""
        self._sums.add(group, number)
        self._least, self._most = min(self._least, number), max(self._most, number)

    @property
    def n(self) -> int:
        """How many numbers there are."""
        return self._sums.denominator

    @property
    def value(self) -> float:
        """The mean."""
        return self._sums.value

    @property
    def least(self) -> float:
        """The least of the numbers."""
        return self._least

    def interval(self, seed: int = 0) -> Interval | None:
        """Returns the mean with the interval of `interval`; None for fewer than two groups."""
        sum_G, count_G = self._sums.grouped()
        return _interval_of_groups(sum_G, count_G, self._least, self._most, seed) if len(sum_G) > 1 else None
