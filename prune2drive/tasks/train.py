"""Trains MiniDrive's model from nothing: `python run.py task=train model=minidrive`.

Three stretches of one run. Naming: every visual token learns to name, in the words of the vocabulary, what it
shows. Learning: answers are learned from these tokens, frozen, with guidance to what decides them. Settling: all
weights learn from answers alone. No loss knows that tokens will be pruned.

Shape suffixes: S scenes, C cameras, N tokens of a camera, T positions, D channels.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from omegaconf import DictConfig, OmegaConf

from prune2drive.errors import InputError
from prune2drive.minidrive.architecture import Architecture, save
from prune2drive.minidrive.training.batches import Recipe
from prune2drive.minidrive.training.module import GAZE_LAYER, MiniDriveTraining
from prune2drive.minidrive.training.schedule import Schedule
from prune2drive.tasks.trainer import build_trainer

log = logging.getLogger(__name__)

LAST = "last"


def run(cfg: DictConfig) -> float:
    """Trains a model from nothing, or goes on from the last checkpoint in `resume`, and saves it.

    Returns:
        exact match on the validation split.

    Raises:
        InputError: settings that no model or schedule can have, or nothing to resume.
    """
    folder = Path(cfg.folder)
    seed_everything(cfg.seed, verbose=False)
    torch.set_flush_denormal(True)
    module = _module(cfg)
    loggers = [CSVLogger(folder, name="curves", flush_logs_every_n_steps=5)]
    if cfg.logger:
        loggers.append(instantiate(cfg.logger, save_dir=str(folder)))
    every = timedelta(minutes=cfg.task.checkpoint_minutes)
    trainer = build_trainer(
        cfg.trainer,
        precision=cfg.task.precision,
        max_steps=module.schedule.steps,
        max_epochs=-1,
        val_check_interval=cfg.task.validation.every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=cfg.task.log_every,
        gradient_clip_val=cfg.task.clip,
        default_root_dir=str(folder),
        logger=loggers,
        callbacks=[ModelCheckpoint(folder, filename=LAST, train_time_interval=every, enable_version_counter=False)],
    )
    trainer.fit(module, ckpt_path=_last(folder) if cfg.resume else None, weights_only=True)
    if trainer.is_global_zero:
        save(module.model, module.sizes, Path(cfg.task.save_to))
        log.info("saved to %s", cfg.task.save_to)
    return float(trainer.callback_metrics["val/exact_match"])


def _module(cfg: DictConfig) -> MiniDriveTraining:
    task: Any = OmegaConf.to_container(cfg.task, resolve=True)
    try:
        sizes, schedule = Architecture(**task["model"]), Schedule(**task["schedule"])
        if sizes.layers <= GAZE_LAYER:
            raise InputError(f"task.model.layers={sizes.layers}: guidance needs more than {GAZE_LAYER} layers")
        recipe = Recipe(**task["recipe"], resolution=sizes.resolution, patch=sizes.patch, seed=cfg.seed)
        return MiniDriveTraining(sizes, schedule, recipe, task["validation"]["scenes"])
    except (TypeError, ValueError) as error:
        raise InputError(f"task: {error}") from error


def _last(folder: Path) -> str:
    """The newest checkpoint of an interrupted run.

    Raises:
        InputError: there is none.
    """
    file = folder / f"{LAST}.ckpt"
    if not file.is_file():
        raise InputError(f"resume={folder}: holds no {file.name}; the run stopped before its first checkpoint")
    return str(file)
