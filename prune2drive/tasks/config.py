"""Composes configurations: from the command line's options to what a task is given."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from prune2drive.data.shard import Shard
from prune2drive.errors import InputError
from prune2drive.files import CONFIGS
from prune2drive.tasks.option_errors import BAD_OPTIONS, explain

VERSION_BASE = "1.3"  # of Hydra's behaviour
CONFIG = "config"
NOT_OF_TASKS = ("hydra", "claim")  # Hydra's own part; what an experiment's runs are compared with, which no run reads

os.environ.setdefault("WANDB_SILENT", "true")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore", module="lightning.*")
OmegaConf.register_new_resolver("first", lambda *values: next(value for value in values if value), replace=True)
OmegaConf.register_new_resolver(
    "shard_suffix", lambda shard: f"_{Shard.parse(shard).file_name}" if shard else "", replace=True
)
OmegaConf.register_new_resolver(
    "label", lambda *parts: "-".join(str(part) for part in parts if isinstance(part, str | int | float)), replace=True
)
OmegaConf.register_new_resolver("single_run", lambda mode: mode != RunMode.MULTIRUN, replace=True)


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Returns the configuration that the command line would give a task for these options.

    Args:
        overrides: options as on the command line, such as `pruner=tfps`.

    Raises:
        InputError: an option or a choice that does not exist.
    """
    with hydra.initialize_config_dir(str(CONFIGS), version_base=VERSION_BASE):
        try:
            whole = hydra.compose(CONFIG, list(overrides), return_hydra_config=True)
        except BAD_OPTIONS as error:
            raise InputError(explain(error)) from None
    return of_task(whole)


def of_task(whole: DictConfig) -> DictConfig:
    """Returns what a task sees of a configuration composed with Hydra's own part; its interpolations read that part."""
    publish(whole)
    return without_others(whole)


def without_others(whole: DictConfig) -> DictConfig:
    """Returns a copy of a configuration that has only what tasks read."""
    cfg = copy.deepcopy(whole)
    with open_dict(cfg):
        for name in NOT_OF_TASKS:
            cfg.pop(name, None)
    return cfg


def publish(whole: DictConfig) -> None:
    """Makes a configuration the one that `${hydra:...}` reads, as Hydra does when a job starts."""
    HydraConfig.instance().set_config(whole)


def in_multirun() -> bool:
    """Returns whether the configuration composed last is that of one run of several, of a sweep or of a search."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
