"""Reads from run.json which metrics the tables of a run show, and how; and what all pages call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prune2drive.metrics.base import Column
from prune2drive.metrics.intervals import Interval, mean_interval, share_interval

BUDGETS = {"final": "tokens after the last cut", "layer_average": "mean tokens over all layers"}
"""`budget_axis` -> what a budget counts."""
ALL_TOKENS = "all tokens"
"""What pages call a run that keeps all visual tokens, by whichever method."""
PRUNED = "pruned"
"""What a run's page calls the run beside one with all tokens."""


def spread(metrics: Mapping[str, float], key: str, column: Column) -> Interval | None:
    """Returns a metric with its 95 % interval, cut to what is possible; None where its error is unknown.

    Args:
        metrics: metrics.json's content.
        key: the metric's key.
        column: how tables show it. A share's interval is normal, that of a few measurements Student's.
    """
    value, stderr = metrics.get(key), metrics.get(f"{key}_stderr")
    if value is None or stderr is None:
        return None
    n = int(metrics.get(f"{key}_n", 0))
    if column.is_share:
        return share_interval(value, stderr, n)
    found = mean_interval(value, stderr, n)
    return found if value < 0 else replace(found, low=max(0.0, found.low))


def columns_of(run: Mapping[str, Any]) -> dict[str, Column]:
    """Returns key of metrics.json -> how tables show it, in their order."""
    return {key: Column(**column) for key, column in run.get("columns", {}).items()}
