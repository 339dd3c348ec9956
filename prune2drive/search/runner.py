"""Makes the runs of a search, each with given keep ratios, by the launcher of a Hydra multirun."""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import traceback
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.tasks.config import of_task

log = logging.getLogger(__name__)

PLAIN_RUN = ("full=false", "pictures=0", "explorer=0", "latency.questions=0", "trainer.enable_progress_bar=false")
"""Options of a run that is made for its scores alone."""
TRIAL_DEFAULTS = dict(option.split("=") for option in ("prefix_cache=memory", *PLAIN_RUN))
SEARCH_ONLY = ("search", "logger")  # groups whose options concern the search as a whole, not its runs


@dataclass(frozen=True)
class Job:
    """Describes a run.

    Args:
        folder: the run folder, relative to the sweep's.
        split: options of the dataset.
        ratios: camera -> keep ratio.
    """

    folder: str
    split: Mapping[str, Any]
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """Holds the metrics of a finished run, or the error of another one."""

    metrics: dict[str, float] | None
    error: str = ""


class RunFailed(Exception):
    """The error of a run in one line; unlike many exceptions it can be sent between processes."""


@dataclass(frozen=True)
class SilentTask:
    """Wraps a task so that it prints nothing, and raises what it would have printed as an error."""

    task: TaskFunction

    def __call__(self, cfg: DictConfig) -> Any:
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                return self.task(cfg)
        except SystemExit as stop:  # run.py ends so after an InputError, Lightning after a signal
            if isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise RunFailed(str(stop.__context__ or f"exit code {stop.code}")) from None
        except InputError as error:
            raise RunFailed(str(error)) from None
        except Exception as error:
            Path(cfg.folder, "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            raise RunFailed(f"{type(error).__name__}: {_first_line(error)}") from None


class RunLauncher:
    """Launches runs that share the options of one command.

    Args:
        config: Hydra's whole configuration of the multirun.
        context: Hydra's.
        task: what a run does with its configuration.
        arguments: the command's options.

    Raises:
        InputError: options that a search sets itself, or that have several values.
    """

    def __init__(self, config: DictConfig, context: HydraContext, task: TaskFunction, arguments: Sequence[str]) -> None:
        self.config, self.context = config, context
        self.folder = Path(config.hydra.sweep.dir).resolve()
        self.command = shlex.join(option for option in arguments if not option.startswith("search.resume="))
        self.common, self.set = self._check(arguments)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=SilentTask(task), config=config
        )

    @property
    def at_once(self) -> int:
        """Returns how many runs to start together: `search.at_once`, else as many as the launcher runs in parallel."""
        if self.config.search.at_once:
            return self.config.search.at_once
        launcher = self.config.hydra.launcher
        count = launcher.get("n_jobs") or launcher.get("array_parallelism") or 1
        return count if count > 0 else (os.cpu_count() or 1)

    def compose(self, split: Mapping[str, Any]) -> tuple[DictConfig, Mapping[str, str]]:
        """Returns the configuration of a run on a split, and its choice in each group.

        Args:
            split: options of the dataset.

        Raises:
            InputError: the command sets an option of the split.
        """
        if twice := [key for key in split if f"dataset.{key}" in self.set]:
            raise InputError(f"dataset.{twice[0]}: the search sets it for each of its splits; use search.splits")
        whole = self.context.config_loader.load_sweep_config(self.config, [*self.common, *_of_split(split)])
        return of_task(whole), whole.hydra.runtime.choices

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Makes the runs that have not finished before, and returns the results of all."""
        to_do = [job for job in jobs if self.finished(job.folder) is None]
        errors: dict[str, str] = {}
        for start in range(0, len(to_do), self.at_once):
            errors |= self._launch(to_do[start : start + self.at_once])
        return [Result(self.finished(job.folder), errors.get(job.folder, "")) for job in jobs]

    def finished(self, folder: str) -> dict[str, float] | None:
        """Returns the metrics of the run in a folder of the sweep's; None if it has not finished."""
        try:
            done = read_json(self.folder / folder / "run.json").get("status") == "finished"
            return read_json(self.folder / folder / "metrics.json") if done else None
        except InputError:
            return None

    def _launch(self, jobs: Sequence[Job]) -> dict[str, str]:
        """Makes runs at the same time and returns folder -> error, which is empty without one."""
        try:
            returned = self.launcher.launch([self._overrides(job) for job in jobs], initial_job_idx=0)
        except Exception as error:  # the launcher's own: a worker was killed, a queue refused
            log.debug("the launcher failed", exc_info=True)
            return {job.folder: f"{type(error).__name__}: {_first_line(error)}" for job in jobs}
        return {job.folder: _error(outcome) for job, outcome in zip(jobs, returned, strict=True)}

    def _check(self, arguments: Sequence[str]) -> tuple[list[str], set[str]]:
        """Returns the options that all runs get, and the keys that the command sets."""
        common: list[str] = []
        keys: set[str] = set()
        for override in OverridesParser.create(self.context.config_loader).parse_overrides(list(arguments)):
            key = override.key_or_group
            if override.is_sweep_override():
                raise InputError(f"{override.input_line}: a search is of one configuration; give {key} one value")
            if key.partition(".")[0] in ("ratios", "resume", "folder"):
                advice = "use search.resume" if key == "resume" else "leave it out"
                raise InputError(f"{override.input_line}: a search sets it; {advice}")
            if key.partition(".")[0] not in SEARCH_ONLY:
                common.append(str(override.input_line))
                keys.add(key)
        common += [f"{key}={value}" for key, value in TRIAL_DEFAULTS.items() if key not in keys]
        return [*common, "logger=none"], keys

    def _overrides(self, job: Job) -> list[str]:
        path = self.folder / job.folder
        return [
            *self.common,
            *_of_split(job.split),
            *ratio_overrides(job.ratios),
            *([f"resume={_quoted(str(path))}"] if (path / "run.json").exists() else []),
            f"hydra.sweep.dir={_quoted(str(self.folder))}",
            f"hydra.sweep.subdir={job.folder}",
            "hydra.job_logging.root.handlers=[file]",
        ]


def ratio_overrides(ratios: Mapping[str, float]) -> list[str]:
    """Returns the options that give each camera its keep ratio."""
    keep = ",".join(f"{camera}:{ratio!r}" for camera, ratio in ratios.items())
    return ["ratios=per_camera", "~ratios.keep", f"+ratios.keep={{{keep}}}"]  # the default's cameras may be others


def _of_split(split: Mapping[str, Any]) -> list[str]:
    """Returns the options that choose a split; `++` because not every dataset's configuration lists all of them."""
    return [f"++dataset.{key}={_quoted(value)}" for key, value in split.items() if value is not None]


def _quoted(value: Any) -> str:
    """Returns a value in the grammar of Hydra's overrides."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return json.dumps(plain)


def _error(returned: JobReturn) -> str:
    failed = returned.status == JobStatus.FAILED
    return str(returned._return_value) if failed else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
