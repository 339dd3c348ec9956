"""Prints a finished run in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SHOWN = (
    "score",
    "exact_match",
    "final",
    "judge",
    "rubric/overall",
    "mcq_accuracy",
    "accuracy",
    "language",
    "match",
    "match_f1",
    "similarity",
    "coverage/objects",
)
COSTS = (
    "tokens/visual_full",
    "tokens/visual_kept",
    "flops/ratio",
    "time/vision_ms",
    "time/select_ms",
    "time/prefill_ms",
    "time/decode_ms_per_token",
    "time/samples_per_s",
)


def print_run(run: Mapping[str, Any], metrics: Mapping[str, float], report: Path, done: str = "answered") -> None:
    """Prints a run's metrics and counts, and where its report is.

    Args:
        run: run.json's content.
        metrics: metrics.json's content; where it has keys under full/, the table compares both runs.
        report: the run's page.
        done: the participle that says what was done to a question.
    """
    console = Console()
    title = " · ".join(str(name) for name in run["choices"].values())
    console.print((_versus if any(key.startswith("full/") for key in metrics) else _alone)(title, metrics))
    counts = run["counts"]
    console.print(f"{counts['done']} of {counts['planned']} questions {done}, {counts['failed']} failed")
    if run["is_noise"]:
        console.print("The model's weights are random: its answers and scores are noise, only counts mean something.")
    console.print(f"report: {report}", soft_wrap=True)


def _alone(title: str, metrics: Mapping[str, float]) -> Table:
    """Returns a table of the metrics with their standard errors and counts."""
    table = Table(title=title)
    for column in ("metric", "value", "± standard error", "n"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for key in (key for key in (*SHOWN, *COSTS) if key in metrics):
        digits = ".4f" if key in SHOWN else ".4g"
        stderr, count = metrics.get(f"{key}_stderr"), metrics.get(f"{key}_n")
        cells = "" if stderr is None else format(stderr, digits), "" if count is None else f"{count:.0f}"
        table.add_row(key, format(metrics[key], digits), *cells)
    return table


def _versus(title: str, metrics: Mapping[str, float]) -> Table:
    """Returns a table of the run with all tokens beside the pruned one; shares have their 95 % interval."""
    table = Table(title=title)
    for column in ("metric", "all tokens", "pruned"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for key in (key for key in (*SHOWN, *COSTS) if key in metrics):
        show_value = _interval if key in SHOWN else _plain
        table.add_row(key, *(show_value(metrics, name) for name in (f"full/{key}", key)))
    return table


def _plain(metrics: Mapping[str, float], key: str) -> str:
    return f"{metrics[key]:.4g}" if key in metrics else ""


def _interval(metrics: Mapping[str, float], key: str) -> str:
    """Returns a share with 1.96 standard errors either side, cut to [0, 1]."""
    if key not in metrics:
        return ""
    value, half = metrics[key], 1.96 * metrics.get(f"{key}_stderr", math.nan)
    return f"{value:.3f} [{max(0.0, value - half):.3f}, {min(1.0, value + half):.3f}]"
