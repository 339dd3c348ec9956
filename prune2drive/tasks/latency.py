"""Measures latency: how long one question takes when it is answered alone, pruned and in full in turns."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from prune2drive.data.datamodule import group_by_frame
from prune2drive.errors import InputError
from prune2drive.metrics.statistics import RatioOfSums, RunningMean, flat
from prune2drive.metrics.timing import timed
from prune2drive.models.prompts import Prompts
from prune2drive.pruning import NoPruner, prune
from prune2drive.sample import Sample
from prune2drive.tasks.components import Components

PRUNED, IN_FULL = "", "full/"
LATENCY = "latency.json"
"""The file of a run folder that keeps what was measured."""


def measure_latency(
    components: Components,
    questions: int,
    warm_up: int,
    device: torch.device,
    options: Mapping[str, Any],
    generation: Mapping[str, Any],
) -> dict[str, float]:
    """Answers some questions of different frames one at a time, and returns the mean seconds of each phase.

    Keys are `time/vision_ms`, `time/select_ms`, `time/prefill_ms` (selection included) and
    `time/decode_ms_per_token`; those of the same questions without pruning begin with `full/`.
    `time/prefill_ratio` is pruned by full seconds.

    Args:
        components: model, dataset, method and ratios.
        questions: how many questions are timed, at most one a frame.
        warm_up: how often the first question is answered before.
        device: where the model is.
        options: keyword arguments of `prune` that a configuration sets.
        generation: options of `generate`.
    """
    pruner, policy, adapter = components.pruner, components.policy, components.adapter
    ways = {PRUNED: pruner} | ({IN_FULL: NoPruner()} if pruner.cuts else {})
    means: dict[str, RunningMean] = defaultdict(RunningMean)
    ratio, decoding = RatioOfSums(), {way: RatioOfSums() for way in ways}

    def answer(sample: Sample, prompts: Prompts, way: str) -> dict[str, float]:
        naming: dict[str, Any] = {
            "token_map": prompts.token_maps,
            "sample_ids": [sample.id],
            "questions": [sample.question],
        }
        with (
            prune(adapter.model, ways[way], policy, **naming, **options) as trace,
            timed(adapter.model, adapter.vision_modules) as times,
        ):
            adapter.generate(prompts, **generation)
        if times.decode_steps:
            decoding[way].add(sample.id, 1000 * times.decode, times.decode_steps)
        phases = {"vision": times.vision, "prefill": times.prefill}
        return phases | ({"select": trace.select_seconds} if ways[way].cuts else {})

    for number, sample in enumerate(_of_different_frames(components, questions)):
        prompts = adapter.collate([sample]).to(device)
        for _ in range(0 if number else warm_up):
            for way in ways:
                answer(sample, prompts, way)
                decoding[way] = RatioOfSums()
        seconds = {way: answer(sample, prompts, way) for way in ways}
        for way, phases in seconds.items():
            for phase, spent in phases.items():
                means[f"{way}time/{phase}_ms"].add(1000 * spent)
        if IN_FULL in seconds:
            pruned, full = (round(1e9 * seconds[way]["prefill"]) for way in (PRUNED, IN_FULL))
            ratio.add(sample.id, pruned, full)
    table = {name: value for key, mean in means.items() for name, value in mean.flat(key).items()}
    for way, steps in decoding.items():
        if steps.groups:
            table |= steps.flat(f"{way}time/decode_ms_per_token")
    if ratio.groups:
        table |= flat("time/prefill_ratio", ratio.value, ratio.groups, ratio.stderr)
    return table


def pooled(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Joins what `measure_latency` returned in several runs: means by their numbers of measurements."""
    joined: dict[str, float] = {}
    for key in dict.fromkeys(name.removesuffix("_n") for table in tables for name in table if name.endswith("_n")):
        parts = [(table[key], int(table[f"{key}_n"]), table[f"{key}_stderr"]) for table in tables if key in table]
        n = sum(count for _, count, _ in parts)
        stderr = math.sqrt(sum((count * error) ** 2 for _, count, error in parts)) / n
        joined |= flat(key, sum(value * count for value, count, _ in parts) / n, n, stderr)
    return joined


def _of_different_frames(components: Components, questions: int) -> Iterator[Sample]:
    """Reads the first question of frames spread evenly over the dataset, but for frames that cannot be read."""
    dataset = components.dataset
    frames = group_by_frame(dataset, range(len(dataset)))
    count = min(questions, len(frames))
    for number in range(count):
        try:
            yield dataset[frames[number * len(frames) // count][0]]
        except InputError:
            continue  # the run itself says so, when it comes to this frame
