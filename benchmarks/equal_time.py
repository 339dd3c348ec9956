"""Finds the keep ratio at which each method takes T-FPS's time at 10 %: vision, selection and prefill of a question.

    OMP_NUM_THREADS=1 python -m benchmarks.equal_time                       # prints a line for each method
    OMP_NUM_THREADS=1 python -m benchmarks.equal_time --write experiments/equal_time.yaml

MiniDrive 2's model on the CPU, a question of another frame each round, a method's ratios and the reference in turns;
medians of the times as multiples of the reference's in the same round. A small model on a CPU: on a large one, where
the decoder's layers are most of the time, late cuts pay less.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml

from experiments.minidrive2 import METHODS
from prune2drive.metrics.timing import timed
from prune2drive.minidrive.dataset import PER_FRAME, MiniDrive
from prune2drive.minidrive.model import MiniDriveModel
from prune2drive.pruning import Pruner, prune
from prune2drive.pruning.ratios import Uniform
from prune2drive.tasks.benchmark.rounds import Turns, spread
from prune2drive.tasks.components import build
from prune2drive.tasks.config import compose

REFERENCE = ("tfps", 0.1)
KEEP = (0.01, 0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)


class Prefill:
    """Times the prefill of MiniDrive 2's questions, one at a time.

    Args:
        questions: number of questions, each about a frame of its own.
    """

    def __init__(self, questions: int) -> None:
        dataset = MiniDrive("val")
        self.adapter, self.samples = MiniDriveModel(), [dataset[at * (PER_FRAME + 1)] for at in range(questions)]

    def seconds(self, pruner: Pruner, keep: float, turn: int) -> float:
        """Returns the CPU seconds of vision, selection and prefill of a turn's question."""
        sample = self.samples[turn % len(self.samples)]
        prompts, model = self.adapter.collate([sample]), self.adapter.model
        naming: dict[str, Any] = {"sample_ids": [sample.id], "questions": [sample.question]}
        with (
            prune(model, pruner, Uniform(keep), token_map=prompts.token_maps, **naming),
            timed(model, self.adapter.vision_modules, time.process_time) as times,
        ):
            self.adapter.generate(prompts, max_new_tokens=1, do_sample=False)
        return times.vision + times.prefill


def multiples(prefill: Prefill, name: str, rounds: int) -> dict[float, float]:
    """Returns keep ratio -> a method's time as a multiple of the reference's."""
    reference, own = (build(compose([f"pruner={each}"]).pruner) for each in (REFERENCE[0], name))
    chosen = {"reference": (reference, REFERENCE[1])} | {f"{keep}": (own, keep) for keep in KEEP}
    calls = count()

    def way(pruner: Pruner, keep: float) -> float:
        return prefill.seconds(pruner, keep, next(calls) // len(chosen))

    ways = {each: partial(way, *options) for each, options in chosen.items()}
    taken = Turns(torch.device("cpu"), rounds, 1).take(ways)
    return {keep: spread("", taken[f"{keep}"], taken["reference"])[""] for keep in KEEP}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="The keep ratio of each method that takes T-FPS's time at 10 %.")
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=9, help="that count")
    parser.add_argument("--write", type=Path, metavar="FILE", help="YAML that experiments.minidrive2 reads")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    prefill, found = Prefill(options.rounds + 1), {}
    for name in options.methods:
        times = {keep: round(each, 3) for keep, each in multiples(prefill, name, options.rounds).items()}
        within = [keep for keep in KEEP if times[keep] <= 1 or (name, keep) == REFERENCE]
        found[name] = {"keep": max(within, default=None), "times": times}
        print(json.dumps({"method": name} | found[name]), flush=True)
    if options.write:
        options.write.write_text(yaml.safe_dump(found, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
