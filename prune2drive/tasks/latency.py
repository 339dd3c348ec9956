"""Measures latency: how long one question takes when it is answered alone, pruned and in full in turns."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from prune2drive.data.dataset import group_by_frame
from prune2drive.errors import InputError
from prune2drive.metrics.statistics import RatioOfSums, RunningMean, flat
from prune2drive.metrics.timing import Times, timed
from prune2drive.models.prompts import Prompts
from prune2drive.pruning import NoPruner, Pruner, prune
from prune2drive.results.run_folder import IN_FULL
from prune2drive.sample import Sample
from prune2drive.tasks.components import Components

LATENCY = "latency.json"
"""The file of a run folder that keeps what was measured."""

Answer = Callable[[Sample, Prompts], tuple[Times, float]]
"""Answers a question; returns the seconds of its phases and, of the prefill, those of the selection."""


class Way:
    """One way of answering questions, and the time that it took so far.

    Args:
        prefix: what the keys of its metrics begin with.
        pruner: the method.
        answer: answers a question in this way.
    """

    def __init__(self, prefix: str, pruner: Pruner, answer: Answer) -> None:
        self.prefix, self.selects, self.answer = prefix, bool(pruner.cuts), answer
        self.means: dict[str, RunningMean] = defaultdict(RunningMean)
        self.decoding = RatioOfSums()

    def take(self, sample: Sample, prompts: Prompts) -> float:
        """Answers a question, adds its times, and returns the seconds of its prefill."""
        times, select_seconds = self.answer(sample, prompts)
        self.means["vision"].add(1000 * times.vision)
        self.means["prefill"].add(1000 * times.prefill)
        if self.selects:
            self.means["select"].add(1000 * select_seconds)
        if times.decode_steps:
            self.decoding.add(sample.id, 1000 * times.decode, times.decode_steps)
        return times.prefill

    def flat(self) -> dict[str, float]:
        """Returns the means as metrics.json has them."""
        at = f"{self.prefix}time/"
        table: dict[str, float] = {}
        for phase, mean in self.means.items():
            table |= mean.flat(f"{at}{phase}_ms")
        return table | (self.decoding.flat(f"{at}decode_ms_per_token") if self.decoding.groups else {})


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
    adapter, policy = components.adapter, components.policy

    def answer(pruner: Pruner, sample: Sample, prompts: Prompts) -> tuple[Times, float]:
        naming: dict[str, Any] = {"sample_ids": [sample.id], "questions": [sample.question]}
        with (
            prune(adapter.model, pruner, policy, token_map=prompts.token_maps, **naming, **options) as trace,
            timed(adapter.model, adapter.vision_modules) as times,
        ):
            adapter.generate(prompts, **generation)
        return times, trace.select_seconds

    methods = {"": components.pruner} | ({IN_FULL: NoPruner()} if components.pruner.cuts else {})
    ways = [Way(prefix, pruner, partial(answer, pruner)) for prefix, pruner in methods.items()]
    ratio = RatioOfSums()
    for number, sample in enumerate(_of_different_frames(components, questions)):
        prompts = adapter.collate([sample]).to(device)
        for _ in range(0 if number else warm_up):
            for way in ways:
                way.answer(sample, prompts)
        pruned, *full = (round(1e9 * way.take(sample, prompts)) for way in ways)  # whole ns
        if full:
            ratio.add(sample.id, pruned, *full)
    table = {key: value for way in ways for key, value in way.flat().items()}
    return table | (flat("time/prefill_ratio", ratio.value, ratio.groups, ratio.stderr) if ratio.groups else {})


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
