"""Runs with given keep ratios, started by a multirun's launcher: what a search's trials and its verdict are made of."""

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
from prune2drive.tasks.config import of_task

log = logging.getLogger(__name__)

TRIAL_DEFAULTS = {  # what nobody looks at in a trial, and what trials share, unless the command says otherwise
    "prefix_cache": "memory",
    "full": "false",
    "pictures": "0",
    "warm_up": "0",
    "trainer.enable_progress_bar": "false",
}
OF_THE_SEARCH = ("search", "logger")  # as a whole: its trials have no logger of their own


@dataclass(frozen=True)
class Job:
    """A run of the dataset's `split` (its options) with these keep ratios, in a folder of the sweep's."""

    folder: str
    split: Mapping[str, Any]
    ratios: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """The metrics of a finished run, or why there are none."""

    metrics: dict[str, float] | None
    error: str = ""


class RunFailed(Exception):
    """A run's error in one line, which travels between processes."""


@dataclass(frozen=True)
class SilentTask:
    """A task that raises what it would have printed, and whose output nobody has to read."""

    task: TaskFunction

    def __call__(self, cfg: DictConfig) -> Any:
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                return self.task(cfg)
        except SystemExit as stop:  # run.py's way to end with one line, and Lightning's to end at a signal
            if isinstance(stop, SIGTERMException) or isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from None
            raise RunFailed(str(stop.__context__ or f"exit code {stop.code}")) from None
        except Exception as error:
            Path(cfg.folder, "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
            raise RunFailed(f"{type(error).__name__}: {_first_line(error)}") from None


class RunLauncher:
    """Makes runs of a command's options.

    Args:
        config: Hydra's, of the multirun.
        arguments: the command's options.

    Raises:
        InputError: options that a search sets itself, or that are several.
    """

    def __init__(self, config: DictConfig, context: HydraContext, task: TaskFunction, arguments: Sequence[str]) -> None:
        self.config, self.context = config, context
        self.folder = Path(config.hydra.sweep.dir).resolve()
        self.command = shlex.join(each for each in arguments if not each.startswith("search.resume="))
        self.common, self.set = self._check(arguments)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=SilentTask(task), config=config
        )

    @property
    def at_once(self) -> int:
        """How many runs to start together: as asked for, or as many as the launcher has going at the same time."""
        if self.config.search.at_once:
            return self.config.search.at_once
        launcher = self.config.hydra.launcher
        count = launcher.get("n_jobs") or launcher.get("array_parallelism") or 1
        return count if count > 0 else (os.cpu_count() or 1)

    def compose(self, split: Mapping[str, Any]) -> tuple[DictConfig, Mapping[str, str]]:
        """The configuration of a run of that split, and its choices in each group.

        Raises:
            InputError: options of the split that the command gives too.
        """
        if twice := [key for key in split if f"dataset.{key}" in self.set]:
            raise InputError(f"dataset.{twice[0]}: the search sets it for each of its splits; use search.splits")
        whole = self.context.config_loader.load_sweep_config(self.config, [*self.common, *_of_split(split)])
        return of_task(whole), whole.hydra.runtime.choices

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Launches runs; those that are finished already are not repeated."""
        to_do = [job for job in jobs if self.finished(job.folder) is None]
        errors: dict[str, str] = {}
        for start in range(0, len(to_do), self.at_once):
            errors |= self._launch(to_do[start : start + self.at_once])
        return [Result(self.finished(job.folder), errors.get(job.folder, "")) for job in jobs]

    def _launch(self, jobs: Sequence[Job]) -> dict[str, str]:
        """What went wrong in which folder."""
        try:
            returned = self.launcher.launch([self._overrides(job) for job in jobs], initial_job_idx=0)
        except Exception as error:  # of the launcher: a worker that was killed, a queue that refuses
            log.debug("the launcher failed", exc_info=True)
            return {job.folder: f"{type(error).__name__}: {_first_line(error)}" for job in jobs}
        return {job.folder: _error(each) for job, each in zip(jobs, returned, strict=True)}

    def finished(self, folder: str) -> dict[str, float] | None:
        """A run's metrics; None where it has not finished."""
        try:
            record = json.loads((self.folder / folder / "run.json").read_text(encoding="utf-8"))
            metrics = json.loads((self.folder / folder / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return metrics if record.get("status") == "finished" else None

    def _check(self, arguments: Sequence[str]) -> tuple[list[str], set[str]]:
        common: list[str] = []
        keys: set[str] = set()
        for override in OverridesParser.create(self.context.config_loader).parse_overrides(list(arguments)):
            key = override.key_or_group
            if override.is_sweep_override():
                raise InputError(f"{override.input_line}: a search is of one configuration; give {key} one value")
            if key.partition(".")[0] in ("ratios", "resume", "folder"):
                advice = "use search.resume" if key == "resume" else "leave it out"
                raise InputError(f"{override.input_line}: a search sets it; {advice}")
            if key.partition(".")[0] not in OF_THE_SEARCH:
                common.append(str(override.input_line))
                keys.add(key)
        common += [f"{key}={value}" for key, value in TRIAL_DEFAULTS.items() if key not in keys]
        return [*common, "logger=none"], keys

    def _overrides(self, job: Job) -> list[str]:
        path = self.folder / job.folder
        ratios = ",".join(f"{camera}:{ratio!r}" for camera, ratio in job.ratios.items())
        return [
            *self.common,
            *_of_split(job.split),
            "ratios=per_camera",
            "~ratios.keep",  # whose cameras may not be this dataset's
            f"+ratios.keep={{{ratios}}}",
            *([f"resume={_quoted(str(path))}"] if (path / "run.json").exists() else []),
            f"hydra.sweep.dir={_quoted(str(self.folder))}",
            f"hydra.sweep.subdir={job.folder}",
            "hydra.job_logging.root.handlers=[file]",
        ]


def _of_split(split: Mapping[str, Any]) -> list[str]:
    """Overrides that choose these questions; `++`: not all datasets' configurations name all their options."""
    return [f"++dataset.{key}={_quoted(value)}" for key, value in split.items() if value is not None]


def _quoted(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return json.dumps(plain)


def _error(returned: JobReturn) -> str:
    failed = returned.status == JobStatus.FAILED
    return str(returned._return_value) if failed else ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
