"""Looks at the folders a run is to use before Hydra makes them, whose own complaint would be a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf


class Folders(Callback):
    """Ends the program with one line where the folder of a run, of a sweep or of what is resumed cannot be used."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        if config.resume and not Path(config.resume).is_dir():
            _refuse(f"resume={config.resume}: no such folder; name the one that the interrupted run printed")
        HydraConfig.instance().set_config(config)  # as Hydra does next: the folder's name is made of its values
        _make(config.hydra.run.dir, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        if (resume := OmegaConf.select(config, "search.resume")) and not Path(resume).is_dir():
            _refuse(f"search.resume={resume}: no such folder; name the one that the search printed")
        _make(config.hydra.sweep.dir, "hydra.sweep.dir")


def _make(folder: str, option: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"{option}={folder}: cannot be made ({error.strerror}); choose another")


def _refuse(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
