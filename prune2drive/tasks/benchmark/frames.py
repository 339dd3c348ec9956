"""Counts questions a second: one at a time by `generate`, and in batches that share frames or do not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from prune2drive.data.datamodule import Batch, DriveDataModule
from prune2drive.data.dataset import group_by_frame
from prune2drive.data.view import DatasetView
from prune2drive.errors import InputError, check_whole, shortened
from prune2drive.pruning import NoPruner, prune
from prune2drive.results.run_folder import RunFolder
from prune2drive.tasks.benchmark.rounds import Turns, spread
from prune2drive.tasks.components import Components
from prune2drive.tasks.loop import Evaluation

Answers = dict[str, str]
CASE = {"model", "dataset", "frames", "questions", "generation"}
FULL, FULL_FRAME, ALONE, QUESTION, FRAME = "full, alone", "full, frame", "alone", "question", "frame"


def prepare(cfg: DictConfig, turns: Turns) -> Callable[[], Iterator[dict[str, Any]]]:
    """Returns what measures one row for every case and way of answering.

    Raises:
        InputError: no case, one that lacks a setting, or components of one that cannot be built or do not fit together.
    """
    cases = []
    for name, case in cfg.task.frames.items():
        if not (OmegaConf.is_dict(case) and case.keys() >= CASE and OmegaConf.is_dict(case.generation)):
            raise InputError(
                f"task.frames.{name}={shortened(case)}: give {', '.join(sorted(CASE))}, or ~task.frames.{name}"
            )
        check_whole(f"task.frames.{name}.frames", case.frames)
        check_whole(f"task.frames.{name}.questions", case.questions, null=True)
        own = copy.deepcopy(cfg)
        with open_dict(own):
            own.model, own.dataset = case.model, case.dataset
            own.generation = OmegaConf.merge(cfg.generation, case.generation)
        components = Components.build(own)
        whole = components.dataset
        groups = group_by_frame(whole, range(len(whole)))[: case.frames]
        places = [group[number % len(group)] for group in groups for number in range(case.questions or len(group))]
        cases.append((name, replace(components, dataset=DatasetView(whole, places), session=None), own))
    if not cases:
        raise InputError("task.frames has no case: leave frames out of task.parts")
    return lambda: (row for case in cases for row in measure(turns, *case))


def measure(turns: Turns, case: str, components: Components, cfg: DictConfig) -> Iterator[dict[str, Any]]:
    """Yields a row for each way of answering all questions, reading and preparing the photos included.

    Args:
        turns: how it is measured.
        case: name of the case.
        components: model, dataset, method and ratios.
        cfg: the configuration.
    """
    adapter, dataset = components.adapter, components.dataset
    folder, unpruned = RunFolder(cfg.folder), replace(components, pruner=NoPruner())
    loop, full_loop = (Evaluation(each, cfg, folder, pictures=0).to(turns.device) for each in (components, unpruned))
    answers: dict[str, Answers] = {}

    def alone(pruned: bool) -> Answers:
        found: Answers = {}
        for index in range(len(dataset)):
            sample = dataset[index]
            batch = Batch([sample], inputs=adapter.collate([sample])).to(turns.device)
            with prune(*loop.pruned, **loop.prune_options(batch)) if pruned else nullcontext():
                found[sample.id] = adapter.generate(batch.inputs, **loop.generation)[0].text
        return found

    def batched(loop: Evaluation, by_frame: bool) -> Answers:
        data = DriveDataModule(dataset, partial(adapter.collate, by_frame=by_frame), cfg.batch_size, by_frame=by_frame)
        found: Answers = {}
        for batch in data.loader(1, 0):
            with loop.reading(batch.to(turns.device)) as (prompts, _, hooks):
                given = adapter.generate(prompts, hooks, **loop.generation)
            found |= {sample.id: answer.text for sample, answer in zip(batch.samples, given, strict=True)}
        return found

    ways: dict[str, Callable[[], Answers]] = {
        FULL: partial(alone, pruned=False),
        FULL_FRAME: partial(batched, full_loop, by_frame=True),
        ALONE: partial(alone, pruned=True),
        QUESTION: partial(batched, loop, by_frame=False),
        FRAME: partial(batched, loop, by_frame=True),
    }
    keep = {way: partial(lambda way: answers.update({way: ways[way]()}), way) for way in ways}
    taken = turns.take({way: partial(turns.seconds, keep[way]) for way in ways})
    for way, seconds in taken.items():
        yield {
            "case": case,
            "way": way,
            "questions": len(dataset),
            "batch_size": 1 if way in (FULL, ALONE) else cfg.batch_size,
            **spread("per_s", [len(dataset)] * turns.rounds, seconds),
            **spread("speedup", taken[ALONE], seconds),
            **spread("over_full", taken[FULL], seconds),
            **spread("over_full_frame", taken[FULL_FRAME], seconds),
            **spread("over_question", taken[QUESTION], seconds),
            "other_answers": sum(answers[way][name] != text for name, text in answers[ALONE].items()),
        }
