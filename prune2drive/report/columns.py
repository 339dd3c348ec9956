"""Reads from run.json which metrics the tables of a run show, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune2drive.metrics.base import Column

BUDGETS = {"final": "tokens after the last cut", "layer_average": "mean tokens over all layers"}
"""`budget_axis` -> what a budget counts."""
ALL_TOKENS = "all tokens"
"""What pages call a run that keeps all visual tokens, by whichever method."""
PRUNED = "pruned"
"""What a run's page calls the run beside one with all tokens."""


def columns_of(run: Mapping[str, Any]) -> dict[str, Column]:
    """Returns key of metrics.json -> how tables show it, in their order."""
    return {key: Column(**column) for key, column in run.get("columns", {}).items()}
