"""One pass over all questions: what is recorded, what remains to do, and the run folder that results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import lightning
import torch
from omegaconf import DictConfig, OmegaConf

from prune2drive.data.datamodule import DriveDataModule, check_ranks
from prune2drive.data.dataset import group_by_frame
from prune2drive.data.shard import identify
from prune2drive.errors import InputError
from prune2drive.metrics import efficiency, object_coverage
from prune2drive.pruning import NoPruner
from prune2drive.results.provenance import describe_run
from prune2drive.results.resume import resume_run
from prune2drive.results.run_folder import FULL, RunFolder
from prune2drive.sample import Prediction
from prune2drive.tasks.components import Components
from prune2drive.tasks.frame_session import RememberingDataModule
from prune2drive.tasks.latency import LATENCY
from prune2drive.tasks.loop import Evaluation

log = logging.getLogger(__name__)

"""The folder, inside a run's own, of the same questions answered without pruning."""


@dataclass(frozen=True)
class Task:
    """Says what is done with every question, and what it is measured by.

    Args:
        loop: does it, a batch at a time.
        measure: returns the metrics of the finished rows, beside coverage and costs.
        headline: key of the metric that the run returns.
        caveat: says in one line why the headline is missing or incomplete; empty where it is whole.
        done: what has been done to a finished question, in a word.
        leave: writes what the task leaves in the run folder beside rows and metrics, from all rows.
    """

    loop: Callable[..., Evaluation]
    measure: Callable[[Components, Collection[Prediction]], dict[str, float]]
    headline: str
    caveat: Callable[[Components, Mapping[str, float]], str]
    done: str
    leave: Callable[[Components, RunFolder, Collection[Prediction]], None] | None = None


@dataclass
class EvaluationRun:
    """Takes a task through all questions once and leaves a run folder: `start`, then `execute`.

    Args:
        cfg: the configuration.
        task: what is done with every question.
        components: model, dataset, method and metrics.
        folder: the run folder.
        record: content of run.json.
        is_timed: whether latency is measured; that of the full model is measured beside the pruned one's.

    Attributes:
        done: ids that an earlier run finished.
        metrics: content of metrics.json, once executed.
        predictions: all rows, once executed.
    """

    cfg: DictConfig
    task: Task
    components: Components
    folder: RunFolder
    record: dict[str, Any]
    is_timed: bool = True
    done: Set[str] = field(default_factory=set)
    metrics: dict[str, float] = field(default_factory=dict)
    predictions: Collection[Prediction] = ()

    @classmethod
    def of(cls, cfg: DictConfig, task: Task, components: Components) -> EvaluationRun:
        """Returns the run that a configuration describes.

        Raises:
            InputError: the run folder cannot be written.
        """
        metric, dataset, policy = components.metric, components.dataset, components.policy
        columns = {**metric.columns, **object_coverage.COLUMNS, **efficiency.COLUMNS}
        record = {
            **describe_run(),
            "status": "running",
            "started": _now(),
            "seed": cfg.seed,
            "is_noise": components.adapter.is_noise,
            "choices": OmegaConf.to_container(cfg.names, resolve=True),
            "config": OmegaConf.to_container(cfg, resolve=True),
            "ratios": policy.describe(dataset.cameras) if components.pruner.cuts else None,
            "ratios_provenance": policy.provenance,
            "dataset": identify(dataset),
            "judge": metric.judge_id,
            "columns": {key: asdict(column) for key, column in columns.items()},
        }
        return cls(cfg, task, components, RunFolder(cfg.folder), record)

    @property
    def pictures(self) -> int:
        """Returns how many samples to draw with their kept tokens."""
        return self.record["config"]["pictures"]

    @property
    def explored(self) -> int:
        """Returns for how many samples to record what the token explorer draws."""
        return self.record["config"]["explorer"]

    def unpruned(self) -> EvaluationRun:
        """Returns a run of the same questions with all tokens, in a folder inside this run's."""
        target = f"{NoPruner.__module__}.{NoPruner.__qualname__}"
        record = self.record | {
            "choices": self.record["choices"] | {"pruner": "none"},
            "config": self.record["config"] | {"pruner": {"_target_": target}, "pictures": 0, "explorer": 0},
            "ratios": None,
            "ratios_provenance": None,
        }
        components = replace(self.components, pruner=NoPruner())
        folder = RunFolder(self.folder.path / FULL)
        return EvaluationRun(self.cfg, self.task, components, folder, record, is_timed=False)

    def start(self, resume: bool, ranks: int) -> None:
        """Writes run.json, or finds out what an earlier run finished.

        Args:
            resume: whether the folder holds a run to continue.
            ranks: number of processes that share the questions.

        Raises:
            InputError: the folder holds another run, or some ranks would have nothing to do. It is raised before
                other ranks are started: later, Lightning may kill the one that says so.
        """
        if resume:
            self.done = resume_run(self.folder, self.record, self.components.dataset.ids)
        elif self.folder.has_rows:
            path = self.folder.path
            raise InputError(f"{path} holds another run: go on with resume={path}, or choose another folder")
        dataset = self.components.dataset
        remaining = [index for index, name in enumerate(dataset.ids) if name not in self.done]
        groups = group_by_frame(dataset, remaining) if self.by_frame else remaining
        check_ranks(len(groups), ranks, self.cfg.batching)
        self.folder.write_json("run.json", self.record)

    def execute(self, trainer: lightning.Trainer) -> None:
        """Does what remains to do; the first rank measures all rows, earlier ones included, and writes the result."""
        lightning.seed_everything(self.cfg.seed, verbose=False)
        data, peak_mb = self._data(), None
        if data.remaining or trainer.world_size > 1:
            loop = self.task.loop(self.components, self.cfg, self.folder, self.pictures, self.explored)
            loop.is_timed &= self.is_timed
            trainer.test(loop, data, verbose=False)
            peak_mb = loop.peak_mb
        if trainer.is_global_zero:
            self._measure(peak_mb)

    def _data(self) -> DriveDataModule:
        components, cfg, by_frame = self.components, self.cfg, self.by_frame
        collate = partial(components.adapter.collate, by_frame=by_frame)
        options = (components.dataset, collate, cfg.batch_size, cfg.num_workers, self.done, cfg.on_error)
        more: dict[str, Any] = {"keep_images": self.pictures, "by_frame": by_frame}
        if components.session:
            return RememberingDataModule(*options, ready=components.session.ready(components.pruner), **more)
        return DriveDataModule(*options, **more)

    @property
    def by_frame(self) -> bool:
        """Whether the questions of a frame are answered together."""
        return self.cfg.batching == "frame"

    def _measure(self, peak_mb: float | None) -> None:
        """Computes the metrics of all rows and writes metrics.json and run.json."""
        adapter, dataset, folder, record = self.components.adapter, self.components.dataset, self.folder, self.record
        rows = self.predictions = folder.merge(dataset.ids)
        if self.task.leave:
            self.task.leave(self.components, folder, rows)
        failed = sum(row.error is not None for row in rows)
        record["counts"] = {"planned": len(dataset), "done": len(rows) - failed, "failed": failed}
        if failed < len(rows):
            self.metrics |= self.task.measure(self.components, rows) | object_coverage.coverage(rows)
            record["dtype"] = record.get("dtype") or str(adapter.model.dtype).removeprefix("torch.")
            costs = efficiency.Efficiency(adapter.text_config, getattr(torch, record["dtype"]).itemsize)
            self.metrics |= costs.compute(rows, _peak_mb(folder, peak_mb))
            if (folder.path / LATENCY).exists():
                self.metrics |= folder.read_json(LATENCY)
        else:
            log.error(
                "none of the %d questions could be %s: see `error` in predictions.jsonl", len(rows), self.task.done
            )
        folder.write_json("metrics.json", self.metrics)
        record["status"] = "unjudged" if self.metrics.get("judge_missing") else "finished"
        record["finished"] = _now()
        folder.write_json("run.json", record)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _peak_mb(folder: RunFolder, now: float | None) -> float | None:
    """Returns the peak memory of the whole run, of which an earlier process may have done all that was to do."""
    before = folder.read_json("metrics.json") if (folder.path / "metrics.json").exists() else {}
    peaks = [peak for peak in (before.get("memory/peak_mb"), now) if peak is not None]
    return max(peaks, default=None)
