"""Defines the interface of a submission to a benchmark's challenge."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

from prune2drive.sample import Prediction


class Submission(Protocol):
    """Writes a run's answers in the format of a challenge."""

    def check(self, ids: Iterable[str]) -> None:
        """Checks, before a model is loaded, that question ids have the challenge's form.

        Raises:
            InputError: an id has another form.
        """

    def write(self, folder: Path, predictions: Collection[Prediction], planned: int) -> str:
        """Writes the file to submit into a run folder, and returns what to do with it, such as an upload command.

        Args:
            planned: number of questions in the dataset.

        Raises:
            InputError: answers are missing, or the folder cannot be written.
        """
