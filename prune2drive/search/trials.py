"""Trials of a search: the best ones, the best so far, the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prune2drive.metrics.simultaneous import pareto_front

DIGITS = 6  # decimal places to which ratios, sums of ratios and objectives are compared


@dataclass(frozen=True)
class Trial:
    """Holds a set of keep ratios that is to be evaluated, was evaluated, or failed.

    Args:
        number: the trial's number in its study, which is also the name of its run folder.
        ratios: camera -> keep ratio.
        reward: R; None without a result.
        objective: R - lambda * P, which is maximised; None without a result.
        error: why the trial failed; empty if it did not.
    """

    number: int
    ratios: dict[str, float]
    reward: float | None = None
    objective: float | None = None
    error: str = ""

    @property
    def total(self) -> float:
        """Returns P, the sum of the keep ratios."""
        return sum(self.ratios.values())

    @property
    def mean(self) -> float:
        """Returns the mean of the keep ratios."""
        return self.total / max(1, len(self.ratios))


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials that succeeded, the highest objective first, the earlier of two equal ones first."""
    done = [trial for trial in trials if trial.objective is not None]
    return sorted(done, key=lambda trial: (-round(trial.objective or 0.0, DIGITS), trial.number))


def best(trials: Sequence[Trial]) -> Trial | None:
    """Returns the trial with the highest objective, the earliest of equal ones; None if all failed."""
    return next(iter(ranked(trials)), None)


def best_so_far(trials: Sequence[Trial]) -> list[float | None]:
    """Returns, for each trial, the highest objective up to it; None before the first success."""
    highest: list[float | None] = []
    for trial in trials:
        known = [value for value in (*highest[-1:], trial.objective) if value is not None]
        highest.append(max(known, default=None))
    return highest


def pareto(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the Pareto front by rising total: no other trial has a higher reward at the same or a smaller total."""
    done = sorted((trial for trial in trials if trial.reward is not None), key=lambda trial: trial.number)
    places = pareto_front([round(trial.total, DIGITS) for trial in done], [trial.reward or 0.0 for trial in done])
    return [done[place] for place in places]


def has_one_total(trials: Sequence[Trial]) -> bool:
    """Tells whether all trials have the same sum of ratios, which leaves no Pareto front to draw."""
    return len({round(trial.total, DIGITS) for trial in trials}) <= 1
