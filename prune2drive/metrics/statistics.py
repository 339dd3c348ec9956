"""Bootstrap intervals of means and of paired differences, resampling whole groups.

Questions about one frame share its images, so frames are drawn, not questions (Efron and Tibshirani, An Introduction
to the Bootstrap, 1993, chapter 8).

Shape suffixes: N questions, G groups, R resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean over n questions and its 95 % percentile interval."""

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
        n: the number of samples.
    """
    half = 1.96 * stderr
    return Interval(share, max(0.0, share - half), min(1.0, share + half), n)


def interval(values: Mapping[Hashable, float], groups: Mapping[Hashable, Hashable], seed: int = 0) -> Interval:
    """The mean of values and its interval.

    Args:
        values: question -> value; for a paired comparison, the difference of its two values.
        groups: question -> what it shares with others, such as its frame.
        seed: of the resamples.

    Raises:
        ValueError: no value.
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
    """The mean of `ours - theirs` over the questions that both answered.

    Raises:
        ValueError: no question in common.
    """
    return interval(
        {question: ours[question] - theirs[question] for question in ours if question in theirs}, groups, seed
    )
