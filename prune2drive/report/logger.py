"""Says what a run's logger must offer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, Protocol

from PIL.Image import Image
from torch import Tensor

from prune2drive.sample import Prediction


class Finished(NamedTuple):
    """A finished run.

    Args:
        run: run.json's content.
        metrics: metrics.json's content.
        predictions: all rows.
        full: all rows of the same questions without pruning; empty where they were not asked.
        scores: returns question id -> score in [0, 1] of rows, for those that have one.
        views: returns the cameras of a row, whose photos it may find missing (InputError): camera -> photo, and the
            rectangles (x0, y0, x1, y1) of the camera's tokens in units of the photo; float [N, 4].
    """

    run: Mapping[str, Any]
    metrics: Mapping[str, float]
    predictions: Collection[Prediction]
    full: Collection[Prediction] = ()
    scores: Callable[[Collection[Prediction]], Mapping[str, float]] = lambda rows: {}
    views: Callable[[Prediction], Mapping[str, tuple[Image, Tensor]]] = lambda row: {}


class Logger(Protocol):
    """Shows runs outside their run folders; a Lightning logger too."""

    def publish(self, finished: Finished) -> None:
        """Sends one finished run and ends it."""

    def end(self, exit_code: int = 0) -> None:
        """Ends a run that is not published, such as a training; nothing where it has ended."""
