"""Random draws that are the same on every machine."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class SceneRandom:
    """Draws random values that are the same on every machine.

    Only `Random.random` is used, whose stream for an integer seed is fixed across Python versions and platforms.
    The key is hashed because Python's own seeding maps some short keys to the same stream.

    Args:
        key: integers that seed the stream.
    """

    def __init__(self, *key: int) -> None:
        digest = hashlib.sha256(repr(key).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:16], "big"))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.random()

    def integer(self, low: int, high: int) -> int:
        """Returns a whole number in [low, high]."""
        return low + int(self._random.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        if weights is None:
            return options[self.integer(0, len(options) - 1)]
        point = self.uniform(0, sum(weights))
        for option, weight in zip(options, weights, strict=True):
            point -= weight
            if point < 0:
                return option
        return options[-1]
