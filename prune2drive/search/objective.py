"""What a trial is worth: R(alpha) - lambda * P(alpha) (paper, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prune2drive.errors import InputError


@dataclass(frozen=True)
class Objective:
    """A weighted sum of a run's metrics, less the price of its ratios.

    Args:
        weights: key of metrics.json -> weight (the original's: language 0.5, accuracy 0.5).
        penalty: lambda, the price of one camera kept whole (the original's: 0.03).

    Raises:
        InputError: no weights, or a number that is none.
    """

    weights: Mapping[str, float]
    penalty: float = 0.03

    def __post_init__(self) -> None:
        if not self.weights:
            raise InputError("search.objective is empty: name at least one metric and its weight, e.g. {score: 1.0}")
        for name, number in {
            **{f"objective.{key}": w for key, w in self.weights.items()},
            "penalty": self.penalty,
        }.items():
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
                raise InputError(f"search.{name}={number}: give a number")

    def reward(self, metrics: Mapping[str, float]) -> float:
        """R: the weighted sum of metrics.

        Raises:
            InputError: the run has no such metric, or it is not a number.
        """
        for key in self.weights:
            if not math.isfinite(metrics.get(key, math.nan)):
                raise InputError(f"search.objective: the trial's metrics.json has no {key}; it has {_some(metrics)}")
        return sum(weight * metrics[key] for key, weight in self.weights.items())

    def value(self, reward: float, ratios: Mapping[str, float]) -> float:
        """R - lambda * P, P the sum of the ratios."""
        return reward - self.penalty * sum(ratios.values())

    def describe(self) -> dict[str, object]:
        """What makes the trials of two searches comparable."""
        return {"objective": {key: float(w) for key, w in self.weights.items()}, "penalty": float(self.penalty)}


def _some(metrics: Mapping[str, float]) -> str:
    """The first names of metrics that an objective may be made of."""
    return ", ".join([key for key in metrics if not key.endswith(("_n", "_stderr")) and "/" not in key][:8]) or "none"
