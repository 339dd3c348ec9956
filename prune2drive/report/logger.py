"""Says what a run's logger must offer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from prune2drive.sample import Prediction


class Finished(NamedTuple):
    """A finished run.

    Args:
        run: run.json's content.
        metrics: metrics.json's content.
        predictions: all rows.
        pictures: rows with the file that shows the tokens kept for them.
        full: all rows of the same questions without pruning; empty where they were not asked.
        scores: returns question id -> score in [0, 1] of rows, for those that have one.
    """

    run: Mapping[str, Any]
    metrics: Mapping[str, float]
    predictions: Collection[Prediction]
    pictures: Sequence[tuple[Prediction, Path]]
    full: Collection[Prediction] = ()
    scores: Callable[[Collection[Prediction]], Mapping[str, float]] = lambda rows: {}


class Logger(Protocol):
    """Shows runs outside their run folders; a Lightning logger too."""

    def publish(self, finished: Finished) -> None:
        """Sends one finished run and ends it."""

    def end(self, exit_code: int = 0) -> None:
        """Ends a run that is not published, such as a training; nothing where it has ended."""
