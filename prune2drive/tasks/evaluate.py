"""The evaluation: model x dataset x pruner x ratios -> answers, scores and costs in a run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import lightning
import torch
from omegaconf import DictConfig

from prune2drive.data.shard import Shard
from prune2drive.errors import InputError
from prune2drive.report.logger import Finished, Logger
from prune2drive.report.run_page import write_report
from prune2drive.report.terminal import print_run
from prune2drive.results.run_folder import IN_FULL
from prune2drive.tasks.components import Components, build, check_metric, check_settings
from prune2drive.tasks.evaluation_run import EvaluationRun, Task
from prune2drive.tasks.loop import Evaluation
from prune2drive.tasks.trainer import build_trainer, say_how_to_go_on

log = logging.getLogger(__name__)

ANSWER = Task(
    loop=Evaluation,
    measure=lambda components, predictions: components.metric(predictions),
    headline="score",
    caveat=lambda components, metrics: components.metric.caveat(metrics),
    done="answered",
)


def run(cfg: DictConfig) -> float:
    """Evaluates one configuration and leaves its run folder; with `full`, first without pruning, in a folder inside it.

    Returns:
        The dataset's headline score; NaN where no answer could be scored, such as a file of questions only.

    Raises:
        InputError: bad input, before the model is loaded where it can be known then.
    """
    return run_task(cfg, *prepare(cfg))


def prepare(cfg: DictConfig) -> tuple[Task, Components]:
    """Returns the task and what its configuration names; no weights are loaded.

    Raises:
        InputError: bad input.
    """
    check_settings(cfg)
    components = Components.build(cfg)
    if not components.submission:  # whose questions are scored elsewhere
        check_metric(components.metric, components.dataset)
    return ANSWER, components


def run_task(
    cfg: DictConfig, task: Task, components: Components, start: Callable[[EvaluationRun], None] | None = None
) -> float:
    """Takes a task through all questions, or those of `cfg.shard`, and leaves its run folder.

    Args:
        cfg: the configuration.
        task: what is done with every question.
        components: what the configuration names.
        start: begins each of the runs instead of `EvaluationRun.start`, on the first rank.

    Returns:
        The task's headline; NaN where there is none, and on all ranks but the first.

    Raises:
        InputError: bad input, before the model is loaded where it can be known then.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if components.adapter.cpu_threads:
        torch.set_num_threads(components.adapter.cpu_threads)
    if cfg.shard is not None:
        components = replace(components, dataset=Shard.parse(cfg.shard).take(components.dataset))
    pruned = EvaluationRun.of(cfg, task, components)
    folder = pruned.folder.path
    say_how_to_go_on(folder)
    trainer = build_trainer(
        cfg.trainer,
        logger=build(cfg.logger, save_dir=str(folder)) if cfg.logger else False,
        enable_checkpointing=False,
        default_root_dir=str(folder),
    )
    full = pruned.unpruned() if cfg.full and components.pruner.cuts else None
    runs = [full, pruned] if full else [pruned]
    if trainer.is_global_zero:  # the other ranks are told what remains when their loaders are made
        for each in runs:
            if start:
                start(each)
            else:
                each.start(bool(cfg.resume) and (each is pruned or each.folder.has_rows), trainer.world_size)
    for each in runs:
        if each is full:
            log.info("first all questions without pruning, to compare with; full=false leaves that out")
        each.execute(trainer)
    if not trainer.is_global_zero:
        return float("nan")
    score = _publish(pruned, full, trainer)
    if cfg.shard is not None:
        log.info("shard %s is done; python -m prune2drive.tasks.merge joins all shards' folders", cfg.shard)
    elif components.submission:
        written = components.submission.write(folder, pruned.predictions, len(components.dataset))
        log.info("to submit: %s", written)
    for each in runs:
        _check_judged(each, pruned)
    return score


def _check_judged(each: EvaluationRun, pruned: EvaluationRun) -> None:
    """Ends a run whose judge stopped answering, with everything else written.

    Raises:
        InputError: answers have no score of the judge.
    """
    if missing := each.metrics.get("judge_missing"):
        asked, folder = each.metrics["judge_asked"], pruned.folder.path
        raise InputError(
            f"the judge scored {asked - missing} of {asked} answers; the same command with resume={folder} goes on"
        )


def _publish(pruned: EvaluationRun, full: EvaluationRun | None, trainer: lightning.Trainer) -> float:
    """Shows the result in the terminal, in report.html and to the loggers; returns the headline metric."""
    task, folder, record = pruned.task, pruned.folder.path, pruned.record
    metrics, predictions = pruned.metrics, pruned.predictions
    if full:
        metrics |= {f"{IN_FULL}{key}": value for key, value in full.metrics.items()}
        pruned.folder.write_json("metrics.json", metrics)
    print_run(record, metrics, write_report(folder, record, metrics), task.done)
    loggers: Sequence[Logger] = trainer.loggers  # type: ignore[assignment]  # ours and W&B's
    for logger in loggers:
        unpruned, parts = full.predictions if full else (), pruned.components
        logger.publish(Finished(record, metrics, predictions, unpruned, parts.metric.by_question, parts.views))
    if failed := record["counts"]["failed"]:
        log.warning(
            "%d of %d samples failed and are not in the scores: see `error` in predictions.jsonl",
            failed,
            len(predictions),
        )
    if caveat := task.caveat(pruned.components, metrics):
        log.warning(caveat)
    return metrics.get(task.headline, float("nan"))
