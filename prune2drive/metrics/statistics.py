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

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


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
