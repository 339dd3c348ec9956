"""Makes Optuna's samplers (Akiba et al., KDD 2019) and a full grid."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from prune2drive.errors import InputError
from prune2drive.search.samplers import Proposer, SamplerChoice
from prune2drive.search.space import HIGH, Space

DIRECTIONS = {"nsga2": ("maximize", "minimize")}
RANDOMISED: Mapping[str, Any] = {
    "tpe": partial(TPESampler, multivariate=True, constant_liar=True),  # cameras compete; batches spread out
    "cmaes": partial(CmaEsSampler, warn_independent_sampling=False),
    "nsga2": NSGAIISampler,
    "random": RandomSampler,
}
SAMPLERS = (*RANDOMISED, "grid")


def make(choice: SamplerChoice, space: Space, trials: Sequence[FrozenTrial], seed: int, fresh_seed: int) -> BaseSampler:
    """Returns a sampler, which reads earlier trials from its study."""
    if choice.name == "grid":
        return Grid(space, choice.levels, seed)
    return RANDOMISED[choice.name](seed=fresh_seed)


class Grid(Proposer):
    """Proposes every combination of equally spaced values, in an order drawn from the seed.

    Unlike Optuna's own grid, it skips no point when its study has other trials, and reports when no point remains.

    Args:
        space: the space to search.
        levels: number of values per variable, from the smallest to the largest.
        seed: seed of the order.

    Raises:
        InputError: the grid has too few or too many points.
    """

    MOST = 1_000_000

    def __init__(self, space: Space, levels: int, seed: int) -> None:
        super().__init__(space)
        points = levels ** len(space.variables) if isinstance(levels, int) and levels > 1 else 0
        if not 0 < points <= self.MOST:
            raise InputError(f"search.levels={levels}: use 2 levels or more, and at most {self.MOST:,} points in all")
        self.order = list(range(points))
        random.Random(seed).shuffle(self.order)
        self.values = np.linspace(space.low, HIGH, levels).tolist()
        self.remaining: Iterator[int] = iter(self.order)

    def propose(self, number: int, trials: Sequence[FrozenTrial]) -> Mapping[str, float] | None:
        names = list(self.space.variables)
        tried = {tuple(trial.params.get(name) for name in names) for trial in trials}
        points = (self._point(place) for place in self.remaining)
        untried = itertools.dropwhile(lambda point: point in tried, points)
        point = next(untried, None)
        return None if point is None else dict(zip(names, point, strict=True))

    def _point(self, place: int) -> tuple[float, ...]:
        base, point = len(self.values), []
        for _ in self.space.variables:
            place, digit = divmod(place, base)
            point.append(self.values[digit])
        return tuple(point)
