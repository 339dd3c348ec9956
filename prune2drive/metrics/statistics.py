"""Means with their standard errors, and bootstrap intervals.

Every statistic writes itself into the flat metrics by `flat(key)`: `key`, `key_n` and `key_stderr`.

Shape suffixes: N questions or samples, G groups, R resamples.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


def flat(key: str, value: float, n: int, stderr: float) -> dict[str, float]:
    """Returns a statistic as metrics.json has it: `key`, `key_n` and `key_stderr`, 0 where one sample cannot tell."""
    return {key: value, f"{key}_n": n, f"{key}_stderr": stderr}


class RunningMean:
    """The mean of numbers that arrive one at a time (Welford's recurrence)."""

    def __init__(self) -> None:
        self._mean, self._count, self._squares = 0.0, 0, 0.0

    def add(self, number: float) -> None:
        """Adds one number."""
        step = number - self._mean
        self._count += 1
        self._mean += step / self._count
        self._squares += step * (number - self._mean)

    def flat(self, key: str) -> dict[str, float]:
        """Returns `key`, `key_n` and `key_stderr`, the standard error s / sqrt(n)."""
        stderr = math.sqrt(self._squares / (self._count - 1) / self._count) if self._count > 1 else 0.0
        return flat(key, self._mean, self._count, stderr)


class RatioOfSums:
    """A sum over groups divided by another one (Cochran, Sampling Techniques, 1977, section 2.11).

    The members of a group are not independent, such as the objects of a frame or the samples of a batch, so the
    standard error counts groups.
    """

    def __init__(self) -> None:
        self._groups: dict[str, tuple[float, int]] = {}

    def add(self, group: str, numerator: float, denominator: int = 1) -> None:
        """Adds to both sums of a group."""
        above, below = self._groups.get(group, (0, 0))
        self._groups[group] = above + numerator, below + denominator

    @property
    def groups(self) -> int:
        """The number of groups."""
        return len(self._groups)

    @property
    def numerator(self) -> float:
        """The numerator, summed over all groups."""
        return sum(above for above, _ in self._groups.values())

    @property
    def denominator(self) -> int:
        """The denominator, summed over all groups."""
        return sum(below for _, below in self._groups.values())

    @property
    def value(self) -> float:
        """The ratio of the sums."""
        return self.numerator / self.denominator

    @property
    def stderr(self) -> float:
        """The standard error of the ratio; 0 for a single group."""
        if (count := self.groups) < 2:
            return 0.0
        ratio = self.value
        squares = sum((above - ratio * below) ** 2 for above, below in self._groups.values())
        return math.sqrt(squares * count / (count - 1)) / self.denominator

    def flat(self, key: str) -> dict[str, float]:
        """Returns `key`, `key_n`, the denominator, and `key_stderr`."""
        return flat(key, self.value, self.denominator, self.stderr)


@dataclass(frozen=True)
class Estimate:
    """A statistic over samples and its jackknife.

    Args:
        value: the statistic over all samples.
        shifts: sample -> how far leaving it out moves the value, scaled so that the squares sum to the
            variance of the value. Keyed by sample, so that statistics which share samples can be combined.
    """

    value: float
    shifts: Mapping[int, float]

    def flat(self, key: str) -> dict[str, float]:
        """Returns `key`, `key_n` and `key_stderr`, the jackknife standard error: 0 for a single sample."""
        return flat(key, self.value, len(self.shifts), math.hypot(*self.shifts.values()))


def jackknife(value: float, without_N: NDArray[np.float64], samples: Iterable[int]) -> Estimate:
    """Returns a statistic with its jackknife.

    Args:
        value: the statistic over all samples.
        without_N: the statistic without each of the samples.
        samples: the number of every sample, in the order of `without_N`.
    """
    shift_N = (without_N - without_N.mean()) * math.sqrt(1 - 1 / len(without_N))
    return Estimate(float(value), dict(zip(samples, shift_N.tolist(), strict=True)))


def mean(values: Sequence[float], samples: Iterable[int] | None = None) -> Estimate:
    """Returns a mean; its jackknife standard error is the usual one, s / sqrt(n).

    Args:
        values: at least one.
        samples: the number of every sample; by default its position.
    """
    values_N = np.asarray(values, dtype=float)
    without_N = (values_N.sum() - values_N) / max(len(values_N) - 1, 1)
    return jackknife(values_N.mean(), without_N, range(len(values)) if samples is None else samples)


def combine(estimates: Mapping[str, Estimate], weights: Mapping[str, float]) -> Estimate:
    """Returns the weighted sum of estimates, with the covariance of those that share samples.

    Args:
        estimates: key -> estimate; may hold more than the weights name.
        weights: key -> weight.
    """
    shifts: dict[int, float] = defaultdict(float)
    for key, weight in weights.items():
        for sample, shift in estimates[key].shifts.items():
            shifts[sample] += weight * shift
    return Estimate(sum(weight * estimates[key].value for key, weight in weights.items()), shifts)


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


def interval(values: Mapping[Hashable, float], groups: Mapping[Hashable, Hashable], seed: int = 0) -> Interval:
    """Returns the mean of values and its bootstrap interval, resampling whole groups.

    Questions about one frame share its images, so frames are drawn, not questions (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 8).

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
    drawn_RG = np.random.default_rng(seed).multinomial(len(sum_G), np.full(len(sum_G), 1 / len(sum_G)), RESAMPLES)
    low, high = np.quantile((drawn_RG @ sum_G) / (drawn_RG @ count_G), [0.025, 0.975])
    return Interval(float(values_N.mean()), float(low), float(high), len(values_N))


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
