"""The trials of a search, whoever made them: the best one, the best so far, the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DIGITS = 6  # to which totals and objectives are told apart


@dataclass(frozen=True)
class Point:
    """A trial that was evaluated.

    Args:
        reward: R; None for a failed trial.
        objective: R - lambda * P.
        error: of a failed trial.
    """

    number: int
    ratios: dict[str, float]
    reward: float | None = None
    objective: float | None = None
    error: str = ""

    @property
    def total(self) -> float:
        """P, the sum of the ratios."""
        return sum(self.ratios.values())

    @property
    def mean(self) -> float:
        return self.total / max(1, len(self.ratios))


def best(points: Sequence[Point]) -> Point | None:
    """The trial with the highest objective, the earliest among equals; None where all failed."""
    done = [point for point in points if point.objective is not None]
    return min(done, key=lambda point: (-round(point.objective or 0.0, DIGITS), point.number), default=None)


def best_so_far(points: Sequence[Point]) -> list[float | None]:
    """The highest objective after each trial; None before the first that succeeded."""
    highest: list[float | None] = []
    for point in points:
        known = [value for value in (*highest[-1:], point.objective) if value is not None]
        highest.append(max(known, default=None))
    return highest


def pareto(points: Sequence[Point]) -> list[Point]:
    """Trials than which no other has a higher reward for no larger total, by total."""
    done = [point for point in points if point.reward is not None]
    front: list[Point] = []
    for point in sorted(done, key=lambda each: (round(each.total, DIGITS), -(each.reward or 0.0), each.number)):
        if not front or (point.reward or 0.0) > (front[-1].reward or 0.0):
            front.append(point)
    return front


def has_one_total(points: Sequence[Point]) -> bool:
    """Whether all trials keep the same share, which leaves no front."""
    return len({round(point.total, DIGITS) for point in points}) <= 1
