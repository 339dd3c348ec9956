"""The names under which W&B finds what a run or a search logs, for those who log it and those who lay it out."""

from __future__ import annotations

from collections.abc import Iterable

"""What the keys of metrics of the run without pruning begin with."""

ANSWERS, PICTURES = "answers", "kept tokens"
TYPES, LATENCY, CAMERAS = "question types", "latency", "tokens per camera"
TRIAL, OBJECTIVE, BEST, RATIO = "trial", "objective", "best", "ratio/"
IMPORTANCE, FRONT = "importance", "front"

BARS = {
    TYPES: ("question type", "score"),
    LATENCY: ("part", "ms"),
    CAMERAS: ("camera", "kept"),
    IMPORTANCE: ("variable", "importance"),
}
"""Key of a bar chart -> the columns of its table that name the bars and say how long they are."""

POINTS = {FRONT: ("mean ratio", "R")}
"""Key of a scatter chart -> the columns of its table that are its axes."""


def kept_by_camera(metrics: Iterable[str]) -> list[str]:
    """Returns the keys that say how many tokens of a camera are kept."""
    return [key for key in metrics if key.startswith("tokens/") and key.endswith("/kept")]


def charted(metrics: Iterable[str]) -> list[str]:
    """Returns the keys that get a chart each: those that are not a count or a standard error of another one."""
    keys = list(metrics)
    companions = {f"{key}{suffix}" for key in keys for suffix in ("_n", "_stderr")}
    return [key for key in keys if key not in companions]
