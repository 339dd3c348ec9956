"""Says what a submission to a benchmark's challenge must offer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from prune2drive.sample import Prediction


class Submission(Protocol):
    """Writes a run's answers in the format of a challenge."""

    def check(self, ids: Iterable[str]) -> None:
        """Checks, before a model is loaded, that these questions can be the challenge's.

        Raises:
            InputError: a question is of another dataset.
        """

    def write(self, folder: Path, predictions: Sequence[Prediction], planned: int) -> str:
        """Writes the file to submit into a run folder.

        Args:
            folder: the run folder.
            predictions: all rows of the run.
            planned: how many questions the dataset has.

        Returns:
            What to do with the file, such as the command that uploads it.

        Raises:
            InputError: answers are missing, or the folder cannot be written.
        """
