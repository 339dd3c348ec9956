"""Means with their standard errors.

Every statistic writes itself into the flat metrics by `flat(key)`: `key`, `key_n` and `key_stderr`.

Shape suffixes: N questions or samples, G groups, R resamples.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


def flat(key: str, value: float, n: int, stderr: float) -> dict[str, float]:
    """Returns a statistic as metrics.json has it: `key`, `key_n` and `key_stderr`, 0 where one sample cannot tell."""
    return {key: value, f"{key}_n": n, f"{key}_stderr": stderr}


class RunningMean:
    """The mean of numbers that arrive one at a time (Welford's recurrence)."""

    def __init__(self) -> None:
        self._mean, self.count, self._squares = 0.0, 0, 0.0

    def add(self, number: float) -> None:
        """Adds one number."""
        step = number - self._mean
        self.count += 1
        self._mean += step / self.count
        self._squares += step * (number - self._mean)

    @property
    def value(self) -> float:
        """The mean; 0 of nothing."""
        return self._mean

    def flat(self, key: str) -> dict[str, float]:
        """Returns `key`, `key_n` and `key_stderr`, the standard error s / sqrt(n)."""
        stderr = math.sqrt(self._squares / (self.count - 1) / self.count) if self.count > 1 else 0.0
        return flat(key, self._mean, self.count, stderr)


class RatioOfSums:
    """A sum over groups divided by another one (Cochran, Sampling Techniques, 1977, section 2.11).

    The members of a group are not independent, such as the objects of a frame or the samples of a batch, so the
    standard error counts groups.
    """

    def __init__(self) -> None:
        self._hashes, self._above, self._below = array("q"), array("d"), array("q")
        self._latest: str | None = None
        self._most = 1 << 16  # entries before those of one group are joined

    def add(self, group: str, numerator: float, denominator: int = 1) -> None:
        """Adds to both sums of a group."""
        if group == self._latest:
            self._above[-1] += numerator
            self._below[-1] += denominator
            return
        if len(self._hashes) >= self._most:
            self._join_groups()
            self._most = max(self._most, 2 * len(self._hashes))
        self._latest = group
        self._hashes.append(hash(group))
        self._above.append(numerator)
        self._below.append(denominator)

    def _join_groups(self) -> None:
        """Joins the entries of groups that came back after others."""
        hashes = np.array(self._hashes, dtype=np.int64)
        _, first_G, group_N = np.unique(hashes, return_index=True, return_inverse=True)
        order_G = np.argsort(first_G)  # as the groups began: an order by hash would differ between processes
        sums = (np.bincount(group_N, np.array(each, dtype=float))[order_G] for each in (self._above, self._below))
        above_G, below_G = sums
        self._hashes = array("q", hashes[first_G[order_G]].tobytes())
        self._above, self._below = array("d", above_G.tobytes()), array("q", below_G.astype(np.int64).tobytes())
        self._latest = None

    def grouped(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns both sums of every group; [G]."""
        self._join_groups()
        return np.array(self._above), np.array(self._below, dtype=float)

    @property
    def groups(self) -> int:
        """The number of groups."""
        return len(self.grouped()[0])

    @property
    def numerator(self) -> float:
        """The numerator, summed over all groups."""
        return float(np.frombuffer(self._above).sum()) if self._above else 0.0

    @property
    def denominator(self) -> int:
        """The denominator, summed over all groups."""
        return sum(self._below)

    @property
    def value(self) -> float:
        """The ratio of the sums."""
        return self.numerator / self.denominator

    @property
    def stderr(self) -> float:
        """The standard error of the ratio; 0 for a single group."""
        above_G, below_G = self.grouped()
        if (count := len(above_G)) < 2:
            return 0.0
        squares = float(((above_G - self.value * below_G) ** 2).sum())
        return math.sqrt(squares * count / (count - 1)) / self.denominator

    def flat(self, key: str) -> dict[str, float]:
        """Returns `key`, `key_n`, the denominator, and `key_stderr`."""
        return flat(key, self.value, int(self.denominator), self.stderr)


@dataclass(frozen=True)
class Estimate:
    """A statistic over samples and its jackknife.

    Args:
        value: the statistic over all samples.
        sample_N: the numbers of the samples, ascending; by them, statistics which share samples can be combined.
        shift_N: how far leaving out each of them moves the value, scaled so that the squares sum to its variance.
    """

    value: float
    sample_N: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shift_N: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def flat(self, key: str) -> dict[str, float]:
        """Returns `key`, `key_n` and `key_stderr`, the jackknife standard error: 0 for a single sample."""
        return flat(key, self.value, len(self.shift_N), math.sqrt(float(self.shift_N @ self.shift_N)))


def jackknife(value: float, without_N: NDArray[np.float64], samples: Iterable[int]) -> Estimate:
    """Returns a statistic with its jackknife.

    Args:
        value: the statistic over all samples.
        without_N: the statistic without each of the samples.
        samples: the number of every sample, in the order of `without_N`.
    """
    shift_N = (without_N - without_N.mean()) * math.sqrt(1 - 1 / len(without_N))
    sample_N = samples if isinstance(samples, np.ndarray) else np.fromiter(samples, np.int64, len(without_N))
    return Estimate(float(value), sample_N, shift_N)


def mean(values: Sequence[float] | NDArray[np.float64], samples: Iterable[int] | None = None) -> Estimate:
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
    whole = Estimate(sum(weight * estimates[key].value for key, weight in weights.items()))
    sample_N, shift_N = whole.sample_N, whole.shift_N
    for key, weight in weights.items():
        part = estimates[key]
        if np.array_equal(sample_N, part.sample_N):
            shift_N = shift_N + weight * part.shift_N
            continue
        both_N = np.union1d(sample_N, part.sample_N)
        sum_N = np.zeros(len(both_N))
        sum_N[np.searchsorted(both_N, sample_N)] = shift_N
        sum_N[np.searchsorted(both_N, part.sample_N)] += weight * part.shift_N
        sample_N, shift_N = both_N, sum_N
    return Estimate(whole.value, sample_N, shift_N)
