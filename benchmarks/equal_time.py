"""How many tokens each method may keep in the time of another, from pixels to the first token of the answer.

    python -m benchmarks.equal_time
    python -m benchmarks.equal_time --reference tfps --tokens 16 --write experiments/equal_time.yaml

One question at a time on the CPU, one thread, CPU time, every method with every budget in turns; the medians of the
rounds, as shares of the un-pruned answer's in the same round, and a straight line over the budgets of each method. In a
model as small as this one, selection weighs more than in a large one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from rich.progress import track

from experiments.minidrive import pruner
from experiments.minidrive2 import METHODS
from prune2drive.files import write_atomically
from prune2drive.pruning import NoPruner, Pruner, Uniform, prune
from prune2drive.tasks.benchmark.rounds import Turns
from prune2drive.tasks.components import Components
from prune2drive.tasks.config import compose

BUDGETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Tokens of a camera that are measured."""
Way = tuple[str, int]
"""A method, and the tokens of a camera that it keeps."""


def affordable(times: Mapping[int, float], most: float) -> int | None:
    """Returns the largest budget whose time is at most `most` on the straight line through all times; None if none is.

    Args:
        times: budget -> time, of two budgets or more.
        most: what the budget may take.
    """
    slope, start = np.polyfit([*times], [*times.values()], 1)
    fits = [k for k in range(1, max(times) + 1) if start + slope * k <= most]
    return max(fits, default=None)


def measure(methods: Mapping[str, Pruner], questions: int, turns: Turns) -> dict[str, dict[int, float]]:
    """Returns the median time of every method with every budget, as a share of the un-pruned answer's.

    Args:
        methods: name -> method.
        questions: number of questions of different frames that are answered in each turn.
        turns: how it is measured.
    """
    components = Components.build(compose(["dataset.split=val", f"dataset.frames={questions}"]))
    adapter, dataset = components.adapter, components.dataset
    places = np.linspace(0, len(dataset) - 1, questions).astype(int).tolist()
    asked = [(dataset[place], adapter.collate([dataset[place]])) for place in places]
    whole = max(asked[0][1].token_maps[0].counts.values())
    depth = adapter.model.config.get_text_config().num_hidden_layers
    resolved = {name: method.resolve(depth) for name, method in methods.items()} | {"none": NoPruner()}
    ways = [("none", whole), *((name, k) for k in BUDGETS if k <= whole for name in methods)]

    def work(way: Way) -> None:
        for sample, prompts in asked:
            naming: dict[str, Any] = {"sample_ids": [sample.id], "questions": [sample.question]}
            with prune(
                adapter.model, resolved[way[0]], Uniform(way[1] / whole), token_map=prompts.token_maps, **naming
            ):
                adapter.generate(prompts, max_new_tokens=1)

    steps = iter(track(range(len(ways) * (turns.rounds + turns.warm_up)), "measuring"))

    def timed(way: Way) -> float:
        next(steps, None)
        return turns.seconds(partial(work, way))

    calls: dict[str, Callable[[], float]] = {str(way): partial(timed, way) for way in ways}
    taken = turns.take(calls)
    shares = {way: float(np.median(np.divide(taken[str(way)], taken[str(ways[0])]))) for way in ways}
    return {name: {k: shares[name, k] for k in BUDGETS if k <= whole} for name in methods}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="How many tokens each method may keep in the time of another.")
    parser.add_argument(
        "--reference", default="tfps", choices=METHODS, metavar="METHOD", help="whose time others may take"
    )
    parser.add_argument("--tokens", type=int, default=16, help="that it keeps of a camera")
    parser.add_argument("--questions", type=int, default=2, help="of different frames, answered in each turn")
    parser.add_argument("--rounds", type=int, default=7, help="that count")
    parser.add_argument("--write", type=Path, metavar="FILE", help="where budgets go, in YAML")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    turns = Turns(torch.device("cpu"), options.rounds, warm_up=1)
    times = measure({name: pruner(name) for name in METHODS}, options.questions, turns)
    slope, start = np.polyfit([*times[options.reference]], [*times[options.reference].values()], 1)
    most = start + slope * options.tokens
    print(f"the time of {options.reference} with {options.tokens} tokens of a camera: {most:.2f} of the un-pruned one")
    found = {name: affordable(of_method, most + 1e-9) for name, of_method in times.items()}
    for name, of_method in times.items():
        shares = "  ".join(f"{k}: {share:.2f}" for k, share in of_method.items())
        print(f"{name:14} {found[name] or 'none':>5}  {shares}")
    if options.write:
        record = {
            "reference": options.reference,
            "share": round(float(most), 3),
            "of": max(times[options.reference]),
            "tokens": found,
        }
        made = f"# Tokens of a camera by method: python -m benchmarks.equal_time --tokens {options.tokens}\n"
        write_atomically(options.write, [made + yaml.safe_dump(record, sort_keys=False)])


if __name__ == "__main__":
    main()
