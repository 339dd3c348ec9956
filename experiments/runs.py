"""Runs that a table is computed from: each in a folder named after its options, and none made twice."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import track

from prune2drive.files import read_json
from prune2drive.search.runner import PLAIN_RUN
from prune2drive.tasks import evaluate
from prune2drive.tasks.config import compose

REPOSITORY = Path(__file__).resolve().parents[1]
PLAIN = ("logger=none", *PLAIN_RUN)
SHARING = ("prefix_cache=memory", "batch_size=50")
SOURCES = ("run.py", "configs", "prune2drive", ":!*.md")  # what a run's result depends on
LONGEST = 200  # characters of a folder's name
Options = tuple[str, ...]
"""Command-line options of a run."""


def named(model: str, dataset: str) -> list[str]:
    """Returns the options that name a model and a data set.

    Args:
        model: a configs/model/ file, with options: `minidrive,checkpoint=DIR`.
        dataset: a configs/dataset/ file.
    """
    file, *settings = model.split(",")
    return [f"model={file}", f"dataset={dataset}", *(f"model.{setting}" for setting in settings)]


def in_process(overrides: Sequence[str]) -> None:
    """Evaluates in this process what `run.py` would with these options, of which `folder` has to be one."""
    evaluate.run(compose(overrides))


class Runs:
    """The finished runs under a folder; other options or another commit make another run.

    Args:
        folder: folder of the runs.
        common: options of all runs.
        shared: make the runs one after the other in one process a job, so that they share their prefixes; times mean
            nothing then.
    """

    def __init__(self, folder: Path, common: Sequence[str] = (), shared: bool = False) -> None:
        self.folder, self.shared = folder, shared
        self.common = (*common, *(SHARING if shared else ()))

    def path(self, options: Options) -> Path:
        """Returns the folder of a run."""
        name = ",".join((*self.common, *options)).replace("/", "_")
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        return self.folder / commit() / (name if len(name) < LONGEST else f"{name[: LONGEST - 9]}-{digest}")

    def make(self, wanted: Iterable[Options], jobs: int = 1) -> None:
        """Makes the runs that are missing, and resumes those that were interrupted.

        Args:
            wanted: options of the runs; repeated ones are made once.
            jobs: number of runs at a time.

        Raises:
            SystemExit: a run failed; the last line of its output says why.
        """
        missing = [options for options in dict.fromkeys(wanted) if not self._finished(options)]
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
        commands = [self._here(options) for options in missing]
        if self.shared and jobs == 1:
            self._await(map(in_process, commands), len(missing))
        elif self.shared:
            os.environ |= threads
            with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
                self._await(pool.map(in_process, commands), len(missing))
        else:
            with ThreadPoolExecutor(jobs) as pool:
                run = partial(self._run, environment=os.environ | threads)
                self._await(pool.map(run, missing), len(missing))

    def _await(self, done: Iterable[None], count: int) -> None:
        for _ in track(done, "runs", total=count, disable=not count):
            pass

    def _here(self, options: Options) -> list[str]:
        """Returns the options of a run in a process that makes several."""
        folder = self.path(options)
        resume = [f"resume='{folder}'"] if _record(folder) else []
        return [*PLAIN, *self.common, *options, f"folder='{folder}'", *resume]

    def right(self, group: Sequence[Options]) -> dict[str, float]:
        """Returns for every question the share of these runs whose answer equals the reference."""
        right: dict[str, float] = defaultdict(float)
        for options in group:
            for row in self.rows(options):
                right[row["id"]] += (row["answer"] == row["reference"]) / len(group)
        return right

    def rows(self, options: Options) -> list[dict[str, Any]]:
        """Returns the rows of a run's predictions.jsonl."""
        lines = (self.path(options) / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def metrics(self, options: Options) -> dict[str, float]:
        """Returns a run's metrics.json."""
        return read_json(self.path(options) / "metrics.json")

    def _finished(self, options: Options) -> bool:
        return _record(self.path(options)).get("status") == "finished"

    def _run(self, options: Options, environment: Mapping[str, str]) -> None:
        folder = self.path(options)
        place = [f"resume='{folder}'"] if _record(folder) else [f"hydra.run.dir='{folder}'"]
        command = [sys.executable, "run.py", *PLAIN, *self.common, *options, *place]
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            message = done.stderr.strip().splitlines() or ["no message"]
            raise SystemExit(f"{' '.join(command[1:])}\n{message[-1]}")


def _record(folder: Path) -> Mapping[str, Any]:
    """Returns a run's run.json, empty where there is none."""
    file = folder / "run.json"
    return read_json(file) if file.is_file() else {}


@cache
def commit() -> str:
    """Returns the commit that last changed what results depend on, with `-dirty` where files differ from it."""
    last, changes = (
        subprocess.run(["git", *command, "--", *SOURCES], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for command in (["log", "-1", "--format=%h"], ["status", "--porcelain"])
    )
    return last.stdout.strip() + ("-dirty" if changes.stdout.strip() else "")
