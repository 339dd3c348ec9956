"""Computes a trial's objective, R(alpha) - lambda * P(alpha) (paper, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prune2drive.errors import InputError


@dataclass(frozen=True)
class Objective:
    """Computes a weighted sum of a run's metrics minus the price of its keep ratios.

    Args:
        weights: key of metrics.json -> weight (the original's: language 0.5, accuracy 0.5).
        penalty: lambda, the price of one camera kept whole (the original's: 0.03).

    Raises:
        InputError: there are no weights, or a weight or the penalty is not a finite number.
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
        """Returns R, the weighted sum of metrics.

        Raises:
            InputError: a metric is missing or not finite.
        """
        for key in self.weights:
            if not math.isfinite(metrics.get(key, math.nan)):
                raise InputError(f"search.objective: the trial's metrics.json has no {key}; it has {_some(metrics)}")
        return sum(weight * metrics[key] for key, weight in self.weights.items())

    def value(self, reward: float, ratios: Mapping[str, float]) -> float:
        """Returns R - lambda * P, where P is the sum of the keep ratios."""
        return reward - self.penalty * sum(ratios.values())

    def describe(self) -> dict[str, object]:
        """Returns the settings that must be equal for trials of two searches to be comparable."""
        return {"objective": {key: float(w) for key, w in self.weights.items()}, "penalty": float(self.penalty)}


def _some(metrics: Mapping[str, float]) -> str:
    """Returns up to 8 names of metrics that an objective can use."""
    return ", ".join([key for key in metrics if not key.endswith(("_n", "_stderr")) and "/" not in key][:8]) or "none"
