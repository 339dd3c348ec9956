"""Sends a run to Weights & Biases and keeps W&B's files inside the run folder."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger

from prune2drive.errors import InputError
from prune2drive.report.logger import Finished
from prune2drive.sample import Prediction

TABLE_ROWS = 200


class RunLogger(WandbLogger):
    """Logs one run, offline by default.

    Args:
        save_dir: the run folder; staged files and W&B's own logs go there too, not into the home folder.
        offline: whether to write files only, which `wandb sync` uploads later.
        shard: the part of the questions that is asked, such as `3/16`: it ends the run's name, and the shards of a run
            are a group with that run's name.
        options: further options of Lightning's WandbLogger (project, name, group, tags, ...).

    Raises:
        InputError: `offline` is false and the machine has no W&B key.
    """

    def __init__(self, save_dir: str, offline: bool = True, shard: str | None = None, **options: Any) -> None:
        if shard is not None:
            name, group = options.get("name"), options.get("group")
            options["name"] = f"{name or 'shard'} {shard}"
            options["group"] = "-".join(filter(None, (group, name))) or None
        os.environ["WANDB_DATA_DIR"] = str(Path(save_dir, "wandb"))
        os.environ["WANDB_CACHE_DIR"] = str(Path(save_dir, "wandb", "cache"))
        super().__init__(save_dir=save_dir, offline=offline, **options)
        self._wandb_init.pop("anonymous", None)  # Lightning always passes it, and W&B warns about it
        if not offline and not wandb.api.api_key:
            raise InputError("logger.offline=false: no W&B key on this machine; run `wandb login`, or log offline")

    def publish(self, finished: Finished) -> None:
        """Sends a run's configuration, metrics, first `TABLE_ROWS` answers and pictures, and ends the W&B run."""
        run, metrics, predictions, pictures = finished
        self.log_hyperparams({key: run[key] for key in ("config", "choices", "git", "versions", "command", "dataset")})
        self.log_metrics(dict(metrics))
        columns = ["id", "question", "answer", "reference", "kept", "of", "error"]
        self.log_table("answers", columns=columns, data=[_cells(row) for row in islice(predictions, TABLE_ROWS)])
        if pictures:
            captions = [f"{row.question} -> {row.answer}" for row, _ in pictures]
            self.log_image("kept tokens", [str(path) for _, path in pictures], caption=captions)
        self.experiment.finish()

    def finalize(self, status: str) -> None:
        """Ends the W&B run of a failed evaluation, so that the next run in this process starts one of its own."""
        super().finalize(status)
        if status != "success" and self._experiment is not None:
            self._experiment.finish(exit_code=1)


def _cells(row: Prediction) -> list[Any]:
    kept, full = sum(row.kept_counts.values()), sum(row.full_counts.values())
    return [row.id, row.question, row.answer, row.reference, kept, full, row.error]
