"""Weights & Biases: what a run or a search shows there, and keeping its files inside its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from prune2drive.errors import InputError
from prune2drive.sample import Prediction
from prune2drive.search.trials import Point, best, best_so_far, has_one_total, pareto

if TYPE_CHECKING:  # it imports Optuna, which a run by itself does without
    from prune2drive.search.ledger import Ledger

TABLE_ROWS = 200


class RunLogger(WandbLogger):
    """Lightning's logger for one run, or for a search with all its trials, offline by default.

    Args:
        save_dir: the run's or the sweep's folder; staged files and W&B's own logs go there too, not into the home
            folder.
        offline: write files only; `wandb sync` uploads them later.
        options: of Lightning's WandbLogger (project, name, group, tags, ...).

    Raises:
        InputError: online without a key.
    """

    def __init__(self, save_dir: str, offline: bool = True, **options: Any) -> None:
        self._sent = 0  # trials of a search
        os.environ["WANDB_DATA_DIR"] = str(Path(save_dir, "wandb"))
        os.environ["WANDB_CACHE_DIR"] = str(Path(save_dir, "wandb", "cache"))
        self._sent = 0  # trials of a search
        super().__init__(save_dir=save_dir, offline=offline, **options)
        self._wandb_init.pop("anonymous", None)  # Lightning passes it always, W&B warns of it
        if not offline and not wandb.api.api_key:
            raise InputError("logger.offline=false: no W&B key on this machine; run `wandb login`, or log offline")

    def publish(
        self,
        run: dict[str, Any],
        metrics: dict[str, float],
        predictions: Sequence[Prediction],
        pictures: Sequence[tuple[Prediction, Path]],
    ) -> None:
        """Sends a finished run's configuration, metrics, answers and pictures, and ends the W&B run."""
        self.log_hyperparams({key: run[key] for key in ("config", "choices", "git", "versions", "command", "dataset")})
        self.log_metrics(metrics)
        columns = ["id", "question", "answer", "reference", "kept", "of", "error"]
        self.log_table("answers", columns=columns, data=[_cells(row) for row in predictions[:TABLE_ROWS]])
        if pictures:
            captions = [f"{row.question} -> {row.answer}" for row, _ in pictures]
            self.log_image("kept tokens", [str(path) for _, path in pictures], caption=captions)
        self.experiment.finish()

    def log_trials(self, points: Sequence[Point]) -> None:
        """Sends those of a search's trials that are not there yet, in their order."""
        if self._experiment is None:
            begun = sorted(Path(self.save_dir or "", "wandb").glob("*run-*-*"))  # W&B's: kind, time and id
            self._wandb_init["id"] = self._wandb_init["id"] or (begun[-1].name.rpartition("-")[2] if begun else None)
            self.experiment.define_metric("*", step_metric="trial")
            self._sent = self.experiment.summary.get("trials", 0)  # where it goes on with a run that is online
        rows = list(zip(points, best_so_far(points), strict=True))
        for point, highest in rows[self._sent :]:
            self._sent += 1
            self.log_metrics({"trials": self._sent, **_step(point, highest)})

    def publish_search(self, ledger: Ledger, ended: bool) -> None:
        """Sends what a search saw as charts and its verdict as summary, and ends the W&B run.

        Args:
            ledger: of the search.
            ended: whether it came to its verdict.
        """
        points = ledger.points
        self.log_trials(points)
        self.log_hyperparams({"config": ledger.identity, "search": {"study": ledger.name, **ledger.about}})
        if charts := _charts(ledger, points):
            self.experiment.log(charts)
        self.experiment.summary.update(_outcome(ledger.verdict, points))
        self.experiment.finish(exit_code=0 if ended else 1)

    def finalize(self, status: str) -> None:
        """Ends the W&B run of a failed evaluation, which the next one in this process would go on with."""
        super().finalize(status)
        if status != "success" and self._experiment is not None:
            self._experiment.finish(exit_code=1)


def _step(point: Point, highest: float | None) -> dict[str, float]:
    """A trial in the series of a search."""
    ratios = {f"ratio/{camera}": ratio for camera, ratio in point.ratios.items()}
    worth = {"objective": point.objective, "reward": point.reward, "best": highest}
    known = {key: value for key, value in worth.items() if value is not None}
    return {"trial": point.number, "failed": int(bool(point.error)), "mean_ratio": point.mean, **ratios, **known}


def _charts(ledger: Ledger, points: Sequence[Point]) -> dict[str, Any]:
    """Importance and front, as far as there are any."""
    charts = {}
    if importance := ledger.importance():
        table = wandb.Table(["variable", "importance"], [list(each) for each in importance.items()])
        charts["importance"] = wandb.plot.bar(table, "variable", "importance", "importance")
    done = [point for point in points if point.reward is not None]
    if not has_one_total(done):
        front = {point.number for point in pareto(done)}
        rows = [[each.number, each.mean, each.reward, each.objective, each.number in front] for each in done]
        table = wandb.Table(["trial", "mean ratio", "R", "objective", "on the front"], rows)
        charts["front"] = wandb.plot.scatter(table, "mean ratio", "R", "reward and kept share")
    return charts


def _outcome(verdict: Mapping[str, Any], points: Sequence[Point]) -> dict[str, Any]:
    """A search's summary: its verdict, or its best trial before there is one."""
    winner = next((point for point in points if point.number == verdict.get("winner")), best(points))
    if winner is None:
        return {}
    shown: dict[str, Any] = {"winner": winner.number}
    shown |= {f"winner/{camera}": ratio for camera, ratio in winner.ratios.items()}
    if verdict:
        shown["verdict"] = verdict["sentence"]
        for each in verdict["tested"]:
            shown[f"test/{each['name']}"] = each["reward"]
            ends = zip(("", "_low", "_high"), each["ahead"] or (), strict=False)
            shown |= {f"test/searched_minus_{each['name']}{end}": value for end, value in ends}
    return shown


def _cells(row: Prediction) -> list[Any]:
    kept, full = sum(row.kept_counts.values()), sum(row.full_counts.values())
    return [row.id, row.question, row.answer, row.reference, kept, full, row.error]
