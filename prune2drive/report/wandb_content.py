"""What W&B is sent of a run: numbers for its charts, tables of answers, pictures, and the run folder's files."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import wandb

from prune2drive.metrics.statistics import RunningMean
from prune2drive.report.columns import columns_of
from prune2drive.report.logger import Finished
from prune2drive.sample import Prediction

TABLE_ROWS = 200
CONFIG = ("config", "choices", "git", "versions", "command", "dataset")
FULL = "full/"
"""What the keys of metrics of the run without pruning begin with."""

ANSWERS, PICTURES = "answers", "kept tokens"
TYPES, LATENCY, CAMERAS = "question types", "latency", "tokens per camera"
BARS = {TYPES: ("question type", "score"), LATENCY: ("part", "ms"), CAMERAS: ("camera", "kept")}
"""Key of a bar chart -> the columns of its table that name the bars and say how long they are."""


class Scores(NamedTuple):
    """Question id -> score, in [0, 1], of the questions that have one.

    Args:
        pruned: of the run.
        full: of the run without pruning; empty where there is none.
    """

    pruned: Mapping[str, float]
    full: Mapping[str, float]

    def change(self, row: Prediction) -> float:
        """Returns what pruning changed of a question's score: below 0 where it lost."""
        return self.pruned.get(row.id, 0.0) - self.full.get(row.id, 0.0)


def log_run(to: Any, finished: Finished) -> None:
    """Logs everything that W&B shows of a finished run, in one step.

    Args:
        to: the W&B run.
        finished: the run.
    """
    run, metrics = finished.run, finished.metrics
    to.config.update({key: run[key] for key in CONFIG if key in run}, allow_val_change=True)
    _describe(to, run, metrics)
    scores = Scores(finished.scores(finished.predictions), finished.scores(finished.full))
    bars = {TYPES: _by_type(finished, scores), LATENCY: _latency(run, metrics), CAMERAS: _by_camera(metrics)}
    to.summary.update(dict(metrics))
    to.log(
        {
            **without_companions(metrics),
            **{key: _bar(key, table) for key, table in bars.items() if table.data},
            ANSWERS: _answers(finished, scores),
            **_pictures(finished),
        }
    )


def _describe(to: Any, run: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Tags a run with the share of the tokens it keeps, and names no ratios where the method drops nothing."""
    if metrics.get("tokens/visual_full"):
        to.tags += (f"keeps {metrics['tokens/visual_kept'] / metrics['tokens/visual_full']:.0%}",)
    ratios = (run.get("choices") or {}).get("ratios")
    if ratios and run.get("ratios") is None:
        to.name = re.sub(rf"-{re.escape(ratios)}\S*", "", to.name)
        to.tags = tuple(tag for tag in to.tags if not tag.startswith(ratios))


def without_companions(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics that get a chart each: those that are not a count or a standard error of another one."""
    companions = {f"{key}{suffix}" for key in metrics for suffix in ("_n", "_stderr")}
    return {key: value for key, value in metrics.items() if key not in companions}


def _bar(key: str, table: wandb.Table) -> Any:
    label, value = BARS[key]
    return wandb.plot.bar(table, label, value, title=key)


def _by_type(finished: Finished, scores: Scores) -> wandb.Table:
    """Returns the mean score of each kind of question."""
    pruned: dict[str, RunningMean] = defaultdict(RunningMean)
    full: dict[str, RunningMean] = defaultdict(RunningMean)
    for row in finished.predictions:
        if row.id in scores.pruned:
            pruned[row.kind].add(scores.pruned[row.id])
        if row.id in scores.full:
            full[row.kind].add(scores.full[row.id])
    table = wandb.Table([*BARS[TYPES], "standard error", "n", "score, all tokens"])
    for kind, mean in sorted(pruned.items()):
        found = mean.flat("score")
        whole = full[kind].flat("score")["score"] if kind in full else None
        table.add_data(kind or "any", found["score"], found["score_stderr"], found["score_n"], whole)
    return table


def _latency(run: Mapping[str, Any], metrics: Mapping[str, float]) -> wandb.Table:
    """Returns the milliseconds of a question's parts, with all tokens too where that was measured."""
    table = wandb.Table(list(BARS[LATENCY]))
    for key, column in columns_of(run).items():
        if key.startswith("time/") and "_ms" in key:
            for prefix, note in (("", ""), (FULL, ", all tokens")):
                if prefix + key in metrics:
                    table.add_data(column.label + note, metrics[prefix + key])
    return table


def _by_camera(metrics: Mapping[str, float]) -> wandb.Table:
    """Returns how many tokens of each camera are kept, in the mean over the questions."""
    table = wandb.Table(list(BARS[CAMERAS]))
    for key in camera_keys(metrics):
        table.add_data(key.split("/")[1], metrics[key])
    return table


def camera_keys(metrics: Mapping[str, float]) -> list[str]:
    """Returns the keys that say how many tokens of a camera are kept."""
    return [key for key in metrics if key.startswith("tokens/") and key.endswith("/kept")]


def _answers(finished: Finished, scores: Scores) -> wandb.Table:
    """Returns a table of answers: those that pruning spoiled first, then those that are wrong anyway."""
    shown = heapq.nsmallest(
        TABLE_ROWS, finished.predictions, key=lambda row: (scores.change(row), scores.pruned.get(row.id, 0.0))
    )
    ids = {row.id for row in shown}
    full = {row.id: row.answer for row in finished.full if row.id in ids}
    cameras = list(dict.fromkeys(camera for row in shown for camera in row.full_counts))
    paired = ["answer, all tokens", "score, all tokens"] if full else []
    fixed = ["id", "type", "question", "reference", "answer", "score", *paired, "kept", "of"]
    table = wandb.Table([*fixed, *cameras, "error"], allow_mixed_types=True)
    for row in shown:
        before = [full.get(row.id), scores.full.get(row.id)] if full else []
        counts = [sum(row.kept_counts.values()), sum(row.full_counts.values())]
        answered = [row.kind, row.question, row.reference, row.answer, scores.pruned.get(row.id)]
        table.add_data(row.id, *answered, *before, *counts, *map(row.kept_counts.get, cameras), row.error)
    return table


def _pictures(finished: Finished) -> dict[str, Sequence[Any]]:
    images = [wandb.Image(str(path), caption=f"{row.question} -> {row.answer}") for row, path in finished.pictures]
    return {PICTURES: images} if images else {}
