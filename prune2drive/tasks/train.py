"""Trains a model: `python run.py task=train model=minidrive`."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from hydra.utils import instantiate
from lightning.pytorch import LightningModule, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig

from prune2drive.errors import InputError
from prune2drive.tasks.components import build, refuse_options
from prune2drive.tasks.trainer import build_trainer

log = logging.getLogger(__name__)

LAST = "last"


class Trainable(Protocol):
    """Describes what `task.module` offers beside Lightning's own methods; it brings its data loaders, too."""

    @property
    def steps(self) -> int:
        """Number of optimizer steps to train for."""

    def save(self, folder: Path) -> None:
        """Writes the trained model to a folder that `model.checkpoint` can name."""


def run(cfg: DictConfig) -> float:
    """Trains the model of `task.module`, or continues from the last checkpoint in `resume`, and saves it.

    Returns:
        The validation metric that `task.monitor` names, of the trained model.

    Raises:
        InputError: the settings of the module or the trainer are wrong, or `resume` has no checkpoint.
    """
    refuse_options(cfg, "task=train", ("shard",))
    folder = Path(cfg.folder)
    seed_everything(cfg.seed, verbose=False)
    module: Trainable = build(cfg.task.module)
    loggers: list[Any] = [CSVLogger(folder, name="curves", flush_logs_every_n_steps=5)]
    if cfg.logger:
        loggers.append(instantiate(cfg.logger, save_dir=str(folder)))
    saving = timedelta(minutes=cfg.task.checkpoint_minutes)
    every = min(cfg.task.validation.every, module.steps)
    trainer = build_trainer(
        cfg.trainer,
        precision=cfg.task.precision,
        max_steps=module.steps,
        max_epochs=-1,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=cfg.task.log_every,
        gradient_clip_val=cfg.task.clip,
        default_root_dir=str(folder),
        logger=loggers,
        callbacks=[ModelCheckpoint(folder, filename=LAST, train_time_interval=saving, enable_version_counter=False)],
    )
    checkpoint = _last_checkpoint(folder) if cfg.resume else None
    torch.set_flush_denormal(True)
    try:
        trainer.fit(cast(LightningModule, module), ckpt_path=checkpoint, weights_only=True)
    finally:
        torch.set_flush_denormal(False)  # as it was, for what else runs in this process
    if trainer.is_global_zero:
        module.save(Path(cfg.task.save_to))
        log.info("saved the model to %s", cfg.task.save_to)
        for logger in loggers[1:]:
            logger.end()
    if module.steps % every or cfg.task.monitor not in trainer.callback_metrics:
        trainer.validate(cast(LightningModule, module), verbose=False)
    return float(trainer.callback_metrics[cfg.task.monitor])


def _last_checkpoint(folder: Path) -> str:
    """Returns the newest checkpoint of an interrupted run.

    Raises:
        InputError: the folder holds none.
    """
    file = folder / f"{LAST}.ckpt"
    if not file.is_file():
        raise InputError(f"resume={folder}: holds no {file.name}; the run stopped before its first checkpoint")
    return str(file)
