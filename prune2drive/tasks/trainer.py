"""Lightning's trainer, as configured."""

from __future__ import annotations

import atexit
import logging
import re
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig
from torch import distributed

from prune2drive.errors import InputError
from prune2drive.tasks.components import build


def build_trainer(node: DictConfig, **more: Any) -> lightning.Trainer:
    """Builds the trainer of `configs/trainer`; the data module has its own samplers, since Lightning's repeat samples.

    Raises:
        InputError: Lightning refuses its settings, or Slurm has started another number of processes.
    """
    atexit.unregister(_leave_group)  # by an earlier run in this process
    atexit.register(_leave_group)
    trainer = build(node, use_distributed_sampler=False, enable_model_summary=False, **more)
    if environment := getattr(trainer.strategy, "cluster_environment", None):
        try:
            environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
        except ValueError as error:
            advice = "with hydra/launcher=submitit_slurm, set hydra.launcher.tasks_per_node and hydra.launcher.nodes"
            raise InputError(f"trainer: {error} {advice}") from error
    return trainer


def say_how_to_go_on(folder: Path) -> None:
    """Lets Lightning, which ends a run one of whose ranks is gone, say in one line how to go on."""
    logger = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")

    def told(record: logging.LogRecord) -> bool:
        if found := re.match(r"\[rank: (\d+)\] Child process .* terminated with code (-?\d+)", record.getMessage()):
            what = f"rank {found[1]} ended with code {found[2]}, and with it the run"
            record.msg, record.args, record.levelno = f"{what}; the same command with resume={folder} goes on", (), 40
            record.levelname = "ERROR"
        return True

    logger.filters[:] = [told]
    if logging.getLogger().handlers:
        logging.getLogger("lightning").handlers.clear()  # which would say everything a second time


def _leave_group() -> None:
    """Leaves the process group while Python still runs.

    Gloo's threads may hold tensors, and one that lets go of them later aborts the process
    (https://github.com/pytorch/pytorch/issues/190489); Lightning sees to NCCL's group alone.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
