"""Hydra's callback that checks output folders before Hydra makes them, whose own complaint would be a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from prune2drive.data.shard import Shard
from prune2drive.errors import InputError
from prune2drive.tasks.config import publish
from prune2drive.tasks.launched_jobs import wait_for_all_jobs


class CheckOutputFolders(Callback):
    """Ends the program where a shard is none, or the folder of a run, of a sweep or of what is resumed cannot be used.

    Raises:
        SystemExit: caused by an InputError that says why; Hydra turns any other exception of a callback into a warning.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.resume and not Path(config.resume).is_dir():
            _refuse(f"resume={config.resume}: no such folder; name the one that the interrupted run printed")
        try:
            if config.shard is not None:
                Shard.parse(config.shard)
        except InputError as error:
            _refuse(str(error))
        publish(config)  # the folder's name is made of Hydra's values
        _make(config.hydra.run.dir, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (resume := OmegaConf.select(config, "search.resume")) and not Path(resume).is_dir():
            _refuse(f"search.resume={resume}: no such folder; name the one that the search printed")
        _make(config.hydra.sweep.dir, "hydra.sweep.dir")
        wait_for_all_jobs(config.hydra.launcher)


def _make(folder: str, option: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"{option}={folder}: cannot be made ({error.strerror}); choose another")


def _refuse(message: str) -> NoReturn:
    raise SystemExit(2) from InputError(message)
