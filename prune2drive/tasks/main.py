"""Starts tasks: from the command line, as `prune2drive` or as `python run.py` in a clone, and from Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.utils import get_method
from omegaconf import DictConfig

from prune2drive.errors import InputError
from prune2drive.files import CONFIGS, read_json
from prune2drive.tasks.config import CONFIG, VERSION_BASE, compose, in_multirun, without_others
from prune2drive.tasks.launched_jobs import go_on_where_restarted
from prune2drive.tasks.option_errors import BAD_OPTIONS, explain

FULL_ERROR = "HYDRA_FULL_ERROR"  # where it is 1, Hydra raises errors instead of printing them


def main() -> None:
    """Runs the task that the command line configures; `--help` explains the options.

    Exits with 2 after one line on stderr where an option or a file is wrong.
    """
    command = list(sys.argv)
    start = hydra.main(version_base=VERSION_BASE, config_path=str(CONFIGS), config_name=CONFIG)
    wants_traceback = os.environ.get(FULL_ERROR) == "1"
    sys.argv[1:] = sorted(command[1:], key=_is_override)  # Hydra's parser refuses its own flags between overrides
    try:
        with env_override({FULL_ERROR: "1"}):
            start(partial(_run_or_exit, command, os.getpid()))()
    except BAD_OPTIONS as error:
        if wants_traceback:
            raise
        _exit(explain(error))
    except InputError as error:  # of a job in another process
        _exit(str(error))
    except SystemExit as stop:
        if isinstance(stop.__cause__, InputError):
            _exit(str(stop.__cause__))
        raise
    finally:
        sys.argv[:] = command


def evaluate(overrides: Sequence[str] = ()) -> dict[str, float]:
    """Runs one configuration as the command does, leaving the same run folder under `./outputs`.

    Example:
        >>> prune2drive.evaluate(["pruner=tfps", "ratios.keep=0.1"])["score"]

    Args:
        overrides: options as on the command line; `hydra.run.dir=...` chooses the run folder.

    Returns:
        The content of metrics.json; empty for tasks that write none, such as `task=flops`.

    Raises:
        InputError: an option or a file that is wrong, in one line.
    """
    compose(overrides)
    if in_multirun():
        raise InputError("a search is a multirun: start it with the command, `prune2drive -m search=...`")
    with hydra.initialize_config_dir(str(CONFIGS), version_base=VERSION_BASE):
        driver: Any = GlobalHydra.instance().hydra
        try:
            done = driver.run(CONFIG, _run, list(overrides), with_log_configuration=False)
        except SystemExit as stop:
            raise stop.__cause__ or stop from None
    done.return_value  # noqa: B018  # raises what the task raised
    HydraConfig.instance().set_config(done.hydra_cfg)
    file = Path(done.cfg.folder, "metrics.json")
    return read_json(file) if file.exists() else {}


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _run(cfg: DictConfig) -> float:
    """Runs the task that a configuration names, and returns its headline metric."""
    return get_method(cfg.task._target_)(without_others(cfg))


def _run_or_exit(command: list[str], process: int, cfg: DictConfig) -> float:
    """Runs a task of the command line; bad input ends the program with one line.

    Args:
        command: the command as it was written, which run.json records.
        process: the id of the process that read the command; a launcher may have started this job in another.
        cfg: the configuration.

    Raises:
        InputError: bad input of a job in another process, for the first to end with.
    """
    sys.argv[:] = command
    go_on_where_restarted(cfg)
    try:
        return _run(cfg)
    except InputError as error:
        if os.getpid() != process:
            raise
        _exit(str(error))


def _exit(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
