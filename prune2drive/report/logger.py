"""Says what a run's logger must offer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    """

    run: Mapping[str, Any]
    metrics: Mapping[str, float]
    predictions: Collection[Prediction]
    pictures: Sequence[tuple[Prediction, Path]]


class Logger(Protocol):
    """Shows finished runs outside their run folders; a Lightning logger too."""

    def publish(self, finished: Finished) -> None:
        """Sends one finished run and ends it."""
