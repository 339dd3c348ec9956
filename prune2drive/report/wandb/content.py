"""What W&B is sent of a run: numbers for its charts, tables of answers, pictures, and the run folder's files."""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import wandb

from prune2drive.results.run_folder import IN_FULL
from prune2drive.errors import InputError
from prune2drive.metrics.frames import by_frame
from prune2drive.metrics.statistics import RunningMean
from prune2drive.results.id_index import NumbersById
from prune2drive.report.columns import columns_of
from prune2drive.report.logger import Finished
from prune2drive.report.wandb.keys import (
    ANSWERS,
    BARS,
    CAMERAS,
    LATENCY,
    PICTURES,
    TYPES,
    charted,
    kept_by_camera,
)
from prune2drive.report.wandb.pictures import masked_image
from prune2drive.sample import Prediction

TABLE_ROWS = 200
CONFIG = ("config", "choices", "git", "versions", "command", "dataset")


class Scores(NamedTuple):
    """Scores, in [0, 1], of the questions that have one.

    Args:
        pruned: of the run.
        full: of the run without pruning; empty where there is none.
    """

    pruned: NumbersById
    full: NumbersById

    def change(self, row: Prediction) -> float:
        """Returns what pruning changed of a question's score: below 0 where it lost."""
        return (self.pruned.get(row.id) or 0.0) - (self.full.get(row.id) or 0.0)


def log_run(to: Any, finished: Finished, pictures: int) -> None:
    """Logs everything that W&B shows of a finished run, in one step.

    Args:
        to: the W&B run.
        finished: the run.
        pictures: how many answers are shown with their cameras, the first of the table.
    """
    run, metrics = finished.run, finished.metrics
    to.config.update({key: run[key] for key in CONFIG if key in run}, allow_val_change=True)
    _describe(to, run, metrics)
    scores = Scores(*(_scores(finished, rows) for rows in (finished.predictions, finished.full)))
    shown = _spoiled_first(finished.predictions, scores)
    images = dict(_pictures(shown[:pictures], finished))
    bars = {TYPES: _by_type(finished, scores), LATENCY: _latency(run, metrics), CAMERAS: _by_camera(metrics)}
    to.summary.update(dict(metrics))
    to.log(
        {
            **{key: metrics[key] for key in charted(metrics)},
            **{key: _bar(key, table) for key, table in bars.items() if table.data},
            ANSWERS: _answers(shown, finished.full, scores, images),
            **({PICTURES: list(images.values())} if images else {}),
        }
    )


def _scores(finished: Finished, rows: Collection[Prediction]) -> NumbersById:
    frames = by_frame(rows)
    return NumbersById(scored for frame in frames for scored in finished.scores(frame).items())


def _describe(to: Any, run: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Tags a run with the share of the tokens it keeps, and names no ratios where the method drops nothing."""
    if metrics.get("tokens/visual_full"):
        to.tags += (f"keeps {metrics['tokens/visual_kept'] / metrics['tokens/visual_full']:.0%}",)
    ratios = (run.get("choices") or {}).get("ratios")
    if ratios and run.get("ratios") is None:
        to.name = re.sub(rf"-{re.escape(ratios)}\S*", "", to.name)
        to.tags = tuple(tag for tag in to.tags if not tag.startswith(ratios))


def _bar(key: str, table: wandb.Table) -> Any:
    label, value = BARS[key]
    return wandb.plot.bar(table, label, value, title=key)


def _by_type(finished: Finished, scores: Scores) -> wandb.Table:
    """Returns the mean score of each kind of question."""
    pruned: dict[str, RunningMean] = defaultdict(RunningMean)
    full: dict[str, RunningMean] = defaultdict(RunningMean)
    for row in finished.predictions:
        for scored, means in ((scores.pruned, pruned), (scores.full, full)):
            if (score := scored.get(row.id)) is not None:
                means[row.kind].add(score)
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
            for prefix, note in (("", ""), (IN_FULL, ", all tokens")):
                if prefix + key in metrics:
                    table.add_data(column.label + note, metrics[prefix + key])
    return table


def _by_camera(metrics: Mapping[str, float]) -> wandb.Table:
    """Returns how many tokens of each camera are kept, in the mean over the questions."""
    table = wandb.Table(list(BARS[CAMERAS]))
    for key in kept_by_camera(metrics):
        table.add_data(key.split("/")[1], metrics[key])
    return table


def _spoiled_first(rows: Iterable[Prediction], scores: Scores) -> list[Prediction]:
    """Returns the answers to show: those that pruning spoiled first, then those that are wrong anyway."""
    return heapq.nsmallest(TABLE_ROWS, rows, key=lambda row: (scores.change(row), scores.pruned.get(row.id) or 0.0))


def _answers(
    shown: Sequence[Prediction], full: Iterable[Prediction], scores: Scores, images: Mapping[str, Any]
) -> wandb.Table:
    """Returns a table of answers, those with all tokens beside them where there are any."""
    ids = {row.id for row in shown}
    before = {row.id: row.answer for row in full if row.id in ids}
    cameras = list(dict.fromkeys(camera for row in shown for camera in row.full_counts))
    paired = ["answer, all tokens", "score, all tokens"] if before else []
    fixed = ["id", "type", "question", "reference", "answer", "score", *paired, "kept", "of"]
    table = wandb.Table([*fixed, *cameras, "error", *([PICTURES] if images else [])], allow_mixed_types=True)
    for row in shown:
        table.add_data(
            *(row.id, row.kind, row.question, row.reference, row.answer, scores.pruned.get(row.id)),
            *([before.get(row.id), scores.full.get(row.id)] if before else []),
            *(sum(row.kept_counts.values()), sum(row.full_counts.values())),
            *map(row.kept_counts.get, cameras),
            row.error,
            *([images.get(row.id)] if images else []),
        )
    return table


def _pictures(rows: Iterable[Prediction], finished: Finished) -> Iterator[tuple[str, Any]]:
    """Yields the id and the picture of each question whose photos can be read."""
    method = (finished.run.get("choices") or {}).get("pruner", "")
    for row in rows:
        with suppress(InputError):
            if row.kept and (views := finished.views(row)):
                yield row.id, masked_image(row, views, method)
