"""Weights & Biases: what a run shows there, and keeping its files inside the run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from prune2drive.errors import InputError
from prune2drive.sample import Prediction

TABLE_ROWS = 200


class RunLogger(WandbLogger):
    """Lightning's logger for one run, offline by default.

    Args:
        save_dir: the run folder; staged files and W&B's own logs go there too, not into the home folder.
        offline: write files only; `wandb sync` uploads them later.
        options: of Lightning's WandbLogger (project, name, group, tags, ...).

    Raises:
        InputError: online without a key.
    """

    def __init__(self, save_dir: str, offline: bool = True, **options: Any) -> None:
        os.environ["WANDB_DATA_DIR"] = str(Path(save_dir, "wandb"))
        os.environ["WANDB_CACHE_DIR"] = str(Path(save_dir, "wandb", "cache"))
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

    def finalize(self, status: str) -> None:
        """Ends the W&B run of a failed evaluation, which the next one in this process would go on with."""
        super().finalize(status)
        if status != "success" and self._experiment is not None:
            self._experiment.finish(exit_code=1)


def _cells(row: Prediction) -> list[Any]:
    kept, full = sum(row.kept_counts.values()), sum(row.full_counts.values())
    return [row.id, row.question, row.answer, row.reference, kept, full, row.error]
