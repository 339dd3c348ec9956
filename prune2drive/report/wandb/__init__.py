"""Sends a run to Weights & Biases and keeps W&B's files inside the run folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger

from prune2drive.errors import InputError
from prune2drive.report.logger import Finished
from prune2drive.report.wandb.content import log_run
from prune2drive.report.wandb.uploading import upload
from prune2drive.results.provenance import git_state

log = logging.getLogger(__name__)

FILES = ("run.json", "metrics.json", "predictions.jsonl", "report.html")
LONGEST_TAG = 64  # W&B's limit


class RunLogger(WandbLogger):
    """Logs one run to files and, with `offline=false`, uploads them when the run ends.

    W&B's server is asked by another process than the run's, so that one which is away, hangs or refuses cannot fail the
    run. A run that is resumed goes on as the same W&B run.

    Args:
        save_dir: the run folder; staged files and W&B's own logs go there too, not into the home folder.
        offline: whether to write files only, which `wandb sync` uploads later; so does WANDB_MODE=offline.
        shard: the part of the questions that is asked, such as `3/16`: it ends the run's name, and the shards of a run
            are a group with that run's name.
        patience: seconds that the run waits for the upload at most.
        pictures: how many answers are shown with their cameras and kept tokens.
        artifact_mb: size up to which files of the run folder are uploaded, each.
        options: further options of Lightning's WandbLogger (project, name, group, tags, ...).

    Raises:
        InputError: `offline` is false and the machine has no W&B key.
    """

    def __init__(
        self,
        save_dir: str,
        offline: bool = True,
        shard: str | None = None,
        patience: float = 20,
        pictures: int = 4,
        artifact_mb: float = 100,
        **options: Any,
    ) -> None:
        offline = offline or os.environ.get("WANDB_MODE", "online") != "online"
        if not offline and not wandb.login(prompt=False, verify=False):
            raise InputError("logger.offline=false: no W&B key on this machine; run `wandb login`, or log offline")
        self.folder, self._files = Path(save_dir), Path(save_dir, "wandb")
        self._patience = None if offline else patience
        self._pictures, self._artifact_mb = pictures, artifact_mb
        if shard is not None:
            name, group = options.get("name"), options.get("group")
            options["name"] = f"{name or 'shard'} {shard}"
            options["group"] = "-".join(filter(None, (group, name))) or None
        if commit := git_state()["commit"]:
            options["tags"] = [*(options.get("tags") or ()), commit[:7]]
        options["tags"] = [str(tag)[:LONGEST_TAG] for tag in options.get("tags") or ()]
        begun = sorted(self._files.glob("*/run-*.wandb"))  # in folders named by the time
        options["id"] = options.get("id") or (begun[-1].stem.removeprefix("run-") if begun else None)
        os.environ["WANDB_DATA_DIR"] = str(self._files)
        os.environ["WANDB_CACHE_DIR"] = str(self._files / "cache")
        super().__init__(
            save_dir=save_dir, **options | {"mode": "offline"}
        )  # Lightning's own option is for the process
        self._wandb_init.pop("anonymous", None)  # Lightning always passes it, and W&B warns about it

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, begun when it is first asked for; one that takes everything and does nothing where W&B fails."""
        try:
            return super().experiment
        except (wandb.Error, OSError) as error:
            log.warning("W&B: %s; the run goes on without it", " ".join(str(error).split()))
            self._experiment = wandb.init(mode="disabled")
            return self._experiment

    def publish(self, finished: Finished) -> None:
        """Sends everything that is shown of a run, and ends the W&B run."""
        with self.harmless():
            log_run(self.experiment, finished, self._pictures)
            self.log_files(FILES)
        self.end()

    @contextmanager
    def harmless(self) -> Iterator[None]:
        """Lets a run go on whatever W&B makes of what it is sent inside this context."""
        try:
            yield
        except Exception as error:  # of any kind: what is sent is on disk, too
            log.warning("W&B: %s; %s has what it lacks", " ".join(str(error).split()), self.folder)

    def log_files(self, names: Iterable[str]) -> None:
        """Adds files of the run folder, those that are there and small enough, as an artifact."""
        artifact = wandb.Artifact(f"files-{self.experiment.id}", type="run")
        for file in (self.folder / name for name in names):
            megabytes = file.stat().st_size / 1e6 if file.is_file() else 0
            if megabytes > self._artifact_mb:
                advice = f"logger.artifact_mb={self._artifact_mb:g}"
                log.info("W&B: %s stays in the run folder: %.0f MB are more than %s", file.name, megabytes, advice)
            elif file.is_file():
                artifact.add_file(str(file), name=file.name)
        self.experiment.log_artifact(artifact)

    def end(self, exit_code: int = 0) -> None:
        """Ends the W&B run, and uploads it unless it is to stay offline."""
        if self._experiment is None:
            return
        self._experiment.finish(exit_code=exit_code)
        self._experiment = None
        if self._patience is not None:
            upload(self._files, self._patience)

    def finalize(self, status: str) -> None:
        """Ends the W&B run of a failed evaluation, so that the next run in this process starts one of its own."""
        super().finalize(status)
        if status != "success":
            self.end(exit_code=1)
