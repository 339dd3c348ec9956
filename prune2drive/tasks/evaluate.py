"""The evaluation: model x dataset x pruner x ratios -> answers, scores and costs in a run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import lightning
import torch
from omegaconf import DictConfig, OmegaConf

from prune2drive.data.datamodule import DriveDataModule, check_ranks
from prune2drive.errors import InputError
from prune2drive.metrics import efficiency, object_coverage
from prune2drive.metrics.base import Column
from prune2drive.pruning.methods.none import NoPruner
from prune2drive.report.logger import Logger
from prune2drive.report.run_page import write_report
from prune2drive.report.terminal import print_run
from prune2drive.report.token_overlay import saved_pictures
from prune2drive.results.provenance import describe_run
from prune2drive.results.resume import resume_run
from prune2drive.results.run_folder import RunFolder
from prune2drive.sample import Prediction
from prune2drive.tasks.cached_loop import CachedEvaluation
from prune2drive.tasks.components import Components, build, check_settings
from prune2drive.tasks.loop import Evaluation
from prune2drive.tasks.prefix_session import CachedDataModule
from prune2drive.tasks.trainer import build_trainer

log = logging.getLogger(__name__)

FULL = "full"  # the folder, in a run's own, of the same questions answered without pruning


@dataclass(frozen=True)
class Task:
    """What is done with every question, and what it is measured by.

    Args:
        loop: does it, a batch at a time.
        measure: metrics of the finished rows, beside coverage and costs.
        headline: the metric that the run returns.
        caveat: says in one line why the headline is missing or incomplete; empty where it is whole.
        done: what has been done to a finished question, in a word.
    """

    loop: Callable[..., Evaluation]
    measure: Callable[[Components, Sequence[Prediction]], dict[str, float]]
    headline: str
    caveat: Callable[[Components, Mapping[str, float]], str]
    done: str


ANSWER = Task(
    loop=lambda parts, *rest: (CachedEvaluation if parts.prefixes else Evaluation)(parts, *rest),
    measure=lambda parts, predictions: parts.metric(predictions),
    headline="score",
    caveat=lambda parts, metrics: parts.metric.caveat(metrics),
    done="answered",
)


@dataclass
class Pass:
    """Once over the questions: how, and the folder it leaves.

    Args:
        record: what run.json says.
        done: ids that an earlier run finished.
        metrics: of all rows, once they are there.
        predictions: those rows.
    """

    parts: Components
    folder: RunFolder
    record: dict[str, Any]
    done: set[str]
    metrics: dict[str, float]
    predictions: list[Prediction]


def run(cfg: DictConfig) -> float:
    """Evaluates one configuration and leaves its run folder; with `full`, first without pruning, in a folder inside it.

    Returns:
        The dataset's headline score; NaN where no answer could be scored (a file of questions only).

    Raises:
        InputError: bad input, before the model is loaded where it can be known then.
    """
    check_settings(cfg)
    return run_task(cfg, ANSWER, Components.build(cfg))


def run_task(cfg: DictConfig, task: Task, parts: Components) -> float:
    """Takes a task through all questions and leaves its run folder, as `run` does.

    Returns:
        the task's headline; NaN where there is none.

    Raises:
        InputError: bad input, before the model is loaded where it can be known then.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    folder = RunFolder(cfg.folder)
    if parts.adapter.cpu_threads:
        torch.set_num_threads(parts.adapter.cpu_threads)
    trainer = build_trainer(
        cfg.trainer,
        logger=build(cfg.logger, save_dir=str(folder.path)) if cfg.logger else False,
        enable_checkpointing=False,
        default_root_dir=str(folder.path),
    )
    pruned = Pass(parts, folder, _describe(cfg, parts), set(), {}, [])
    passes = [pruned]
    if cfg.full and parts.pruner.cuts:
        passes.insert(0, _unpruned(pruned))
    if trainer.is_global_zero:  # the other ranks are told what remains when their loaders are made
        for each in passes:
            _begin(each, bool(cfg.resume) and (each is pruned or each.folder.has_rows), trainer.world_size)
    for each in passes:
        if each is not pruned:
            log.info("first all questions without pruning, to compare with; full=false leaves that out")
        _go_through(each, task, cfg, trainer)
    if not trainer.is_global_zero:
        return float("nan")
    full = passes[0] if len(passes) > 1 else None
    score = _publish(pruned, full, task, trainer)
    if parts.submission:
        log.info("to submit: %s", parts.submission.write(folder.path, pruned.predictions, len(parts.dataset)))
    for each in passes:
        _check_judged(each.metrics, folder)
    return score


def _describe(cfg: DictConfig, parts: Components) -> dict[str, Any]:
    return {
        **describe_run(),
        "status": "running",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": cfg.seed,
        "is_noise": parts.adapter.is_noise,
        "choices": OmegaConf.to_container(cfg.names, resolve=True),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "ratios": _ratios(parts),
        "ratios_provenance": parts.policy.provenance,
        "dataset": {"fingerprint": parts.dataset.fingerprint, "size": len(parts.dataset)},
        "judge": parts.metric.judge_id,
        "columns": {key: asdict(column) for key, column in _columns(parts).items()},
    }


def _columns(parts: Components) -> dict[str, Column]:
    """What tables show of this run, in their order."""
    return {**parts.metric.columns, **object_coverage.COLUMNS, **efficiency.COLUMNS}


def _ratios(parts: Components) -> dict[str, Any] | None:
    """The keep ratio of each camera, or how a budget is shared between them."""
    return parts.policy.describe(parts.dataset.cameras) if parts.pruner.cuts else None


def _unpruned(pruned: Pass) -> Pass:
    """The same questions with all tokens."""
    none = NoPruner()
    target = f"{NoPruner.__module__}.{NoPruner.__qualname__}"
    record = pruned.record | {
        "choices": pruned.record["choices"] | {"pruner": "none"},
        "config": pruned.record["config"] | {"pruner": {"_target_": target}, "pictures": 0},
        "ratios": None,
        "ratios_provenance": None,
    }
    return Pass(replace(pruned.parts, pruner=none), RunFolder(pruned.folder.path / FULL), record, set(), {}, [])


def _begin(each: Pass, resume: bool, ranks: int) -> None:
    """Writes run.json, or finds out what an earlier run finished.

    Raises:
        InputError: the folder holds another run, or some ranks would have nothing to do. Found here, before other
            ranks are started: later, Lightning may kill the one that says so.
    """
    folder = each.folder
    if resume:
        each.done = resume_run(folder, each.record)
    elif folder.has_rows:
        raise InputError(f"{folder.path} holds another run: go on with resume={folder.path}, or choose another folder")
    check_ranks(sum(name not in each.done for name in each.parts.dataset.ids), ranks)
    folder.write_json("run.json", each.record)


def _go_through(each: Pass, task: Task, cfg: DictConfig, trainer: Any) -> None:
    """Does what is left to do, measures all rows, those of earlier runs included, and writes the result."""
    parts, folder, record = each.parts, each.folder, each.record
    lightning.seed_everything(cfg.seed, verbose=False)
    options = (parts.dataset, parts.adapter.collate, cfg.batch_size, cfg.num_workers, each.done, cfg.on_error)
    pictures = record["config"]["pictures"]
    if parts.prefixes:
        data: DriveDataModule = CachedDataModule(
            *options, ready=parts.prefixes.ready(parts.pruner), keep_images=pictures
        )
    else:
        data = DriveDataModule(*options, keep_images=pictures)
    peak_mb = None
    if data.remaining or trainer.world_size > 1:
        module = task.loop(parts, cfg, folder, pictures)
        trainer.test(module, data, verbose=False)
        peak_mb = module.peak_mb
    if not trainer.is_global_zero:
        return
    predictions = each.predictions = folder.merge({name: place for place, name in enumerate(parts.dataset.ids)})
    failed = sum(prediction.error is not None for prediction in predictions)
    record["counts"] = {"planned": len(parts.dataset), "done": len(predictions) - failed, "failed": failed}
    if failed < len(predictions):
        each.metrics |= task.measure(parts, predictions) | object_coverage.coverage(predictions)
        record["dtype"] = record.get("dtype") or str(parts.adapter.model.dtype).removeprefix("torch.")
        costs = efficiency.Efficiency(parts.adapter.text_config, getattr(torch, record["dtype"]).itemsize)
        each.metrics |= costs.compute(predictions, _peak_mb(folder, peak_mb))
    else:
        log.error("none of the %d questions could be %s: see `error` in predictions.jsonl", len(predictions), task.done)
    folder.write_json("metrics.json", each.metrics)
    status = "unjudged" if each.metrics.get("judge_missing") else "finished"
    record |= {"status": status, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    folder.write_json("run.json", record)


def _peak_mb(folder: RunFolder, now: float | None) -> float | None:
    """Peak memory of the whole run, of which an earlier process may have done all that was to do."""
    before = folder.read_json("metrics.json") if (folder.path / "metrics.json").exists() else {}
    peaks = [peak for peak in (before.get("memory/peak_mb"), now) if peak is not None]
    return max(peaks, default=None)


def _check_judged(metrics: Mapping[str, float], folder: RunFolder) -> None:
    """Ends a run whose judge stopped answering, with everything else written.

    Raises:
        InputError: it did.
    """
    if missing := metrics.get("judge_missing"):
        scored, asked = metrics["judge_asked"] - missing, metrics["judge_asked"]
        raise InputError(
            f"the judge scored {scored} of {asked} answers; the same command with resume={folder.path} goes on"
        )


def _publish(pruned: Pass, full: Pass | None, task: Task, trainer: Any) -> float:
    """Shows the result in the terminal, in report.html and to the loggers."""
    folder, record, metrics, predictions = pruned.folder.path, pruned.record, pruned.metrics, pruned.predictions
    if full:
        metrics |= {f"{FULL}/{key}": value for key, value in full.metrics.items()}
        pruned.folder.write_json("metrics.json", metrics)
    pictures = saved_pictures(folder, predictions)
    print_run(record, metrics, write_report(folder, record, metrics, pictures), task.done)
    loggers: Sequence[Logger] = trainer.loggers
    for logger in loggers:
        logger.publish(record, metrics, predictions, pictures)
    if failed := record["counts"]["failed"]:
        log.warning(
            "%d of %d samples failed and are not in the scores: see `error` in predictions.jsonl",
            failed,
            len(predictions),
        )
    if caveat := task.caveat(pruned.parts, metrics):
        log.warning(caveat)
    return metrics.get(task.headline, float("nan"))
