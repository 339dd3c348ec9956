"""Takes turns between ways of doing the same work: beside other programs only ratios within a round are steady."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

QUARTILES = "_quartiles"


def spread(name: str, values: Sequence[float], by: Sequence[float] = ()) -> dict[str, Any]:
    """Returns the median of what each round gave, under its name, and the quartiles under `<name>_quartiles`.

    Args:
        name: name of the quantity.
        values: one value or more.
        by: divides each value by that of the same round.
    """
    low, median, high = np.quantile(np.divide(values, by or 1), (0.25, 0.5, 0.75)).tolist()
    return {name: median, name + QUARTILES: [low, high]}


@dataclass(frozen=True)
class Turns:
    """Says how work is measured.

    Args:
        device: where it is done.
        rounds: how often each way takes its turn.
        warm_up: rounds before them that do not count.
    """

    device: torch.device
    rounds: int
    warm_up: int

    def clock(self) -> float:
        """Returns seconds: CPU time for one thread on a CPU, else wall time, once the device has done its work."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        elif torch.get_num_threads() == 1:
            return time.process_time()
        return time.perf_counter()

    def seconds(self, work: Callable[[], object]) -> float:
        """Returns how long some work takes."""
        start = self.clock()
        work()
        return self.clock() - start

    def take(self, ways: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Calls every way once a round, in an order that turns round with each, and returns what each round gave.

        Args:
            ways: name -> does the work and returns its seconds.
        """
        turns = range(self.warm_up + self.rounds)
        given = [{way: ways[way]() for way in list(ways)[:: -1 if turn % 2 else 1]} for turn in turns]
        return {way: [each[way] for each in given[self.warm_up :]] for way in ways}
