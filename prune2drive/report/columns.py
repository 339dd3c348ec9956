"""Reads from run.json which metrics the tables of a run show, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune2drive.metrics.base import Column
from prune2drive.metrics.statistics import Interval

BUDGETS = {"final": "tokens after the last cut", "layer_average": "mean tokens over all layers"}
"""`budget_axis` -> what a budget counts."""


def columns_of(run: Mapping[str, Any]) -> dict[str, Column]:
    """Returns key of metrics.json -> how tables show it, in their order."""
    return {key: Column(**column) for key, column in run.get("columns", {}).items()}


def as_read(value: float, column: Column) -> str:
    """Returns a value as a person would write it: shares in percent, other numbers with three digits and their unit."""
    if column.is_share:
        return f"{100 * value:.1f} %"
    scaled = value * column.scale
    number = f"{scaled:,.0f}" if abs(scaled) >= 100 else f"{scaled:.3g}"
    return f"{number} {column.unit}".rstrip()


def in_points(interval: Interval, spec: str = "+.1f") -> str:
    """Returns a difference of shares in percentage points, with its interval; `0` where nothing differs."""
    if interval.value == interval.low == interval.high == 0:
        return "0"
    value, low, high = (100 * each for each in (interval.value, interval.low, interval.high))
    return format(Interval(value, low, high, interval.n), spec)
