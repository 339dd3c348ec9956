"""Measures which objects a pruner leaves visible, without generating a word: `python run.py task=coverage`.

The vision tower runs, and the decoder as deep as the pruner looks; the rest is skipped.
"""

from __future__ import annotations

from dataclasses import replace

from omegaconf import DictConfig

from prune2drive.data.datamodule import Batch
from prune2drive.data.dataset import Dataset, group_by_frame
from prune2drive.data.view import DatasetView
from prune2drive.errors import InputError
from prune2drive.pruning.surgery.early_exit import stop_at
from prune2drive.sample import Prediction
from prune2drive.tasks.components import Components, check_settings
from prune2drive.tasks.evaluate import run_task
from prune2drive.tasks.evaluation_run import Task
from prune2drive.tasks.loop import Evaluation

PER = ("question", "frame")


class SelectionOnlyEvaluation(Evaluation):
    """Selects the tokens of every question, and generates nothing."""

    is_timed = False

    def answer(self, batch: Batch) -> list[Prediction]:
        adapter, last = self.components.adapter, max(self.components.pruner.cuts, default=0)
        with self.reading(batch, until=last) as (prompts, trace, _):
            if not trace.kept:  # else reading the frames was all that was needed
                with stop_at(adapter.model, last):
                    adapter.prefill(prompts)
        return self.rows(batch, trace)


CHOOSE = Task(
    loop=SelectionOnlyEvaluation,
    measure=lambda components, predictions: {},
    headline="coverage/objects",
    caveat=lambda components, metrics: (
        "" if "coverage/objects" in metrics else "no coverage: these questions come without annotated objects"
    ),
    done="looked at",
)


def run(cfg: DictConfig) -> float:
    """Measures the object coverage of one configuration and leaves its run folder.

    Returns:
        `coverage/objects`; NaN without annotated objects.

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
    if cfg.task.per not in PER:
        raise InputError(f"task.per={cfg.task.per}: choose from {', '.join(PER)}")
    if cfg.submission:
        raise InputError("submission: task=coverage answers no question that could be submitted; leave it out")
    components = Components.build(cfg)
    if cfg.task.per == "frame":
        components = replace(components, dataset=first_question_per_frame(components.dataset))
    return CHOOSE, components


def first_question_per_frame(dataset: Dataset) -> DatasetView:
    """Returns a dataset's first question of each frame: enough for a pruner that does not read the question."""
    return DatasetView(dataset, [first for first, *_ in group_by_frame(dataset, range(len(dataset)))])
