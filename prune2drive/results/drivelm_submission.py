"""Writes a submission to the DriveLM challenge (challenge/prepare_submission.py of OpenDriveLab/DriveLM)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.files import write_list
from prune2drive.sample import Prediction

NAME = "submission.json"
_ID = re.compile(r"[0-9a-f]{32}_[0-9a-f]{32}_\d+")  # nuScenes' tokens of the scene and the frame, the question's number


@dataclass(frozen=True)
class DriveLMSubmission:
    """Writes a run's answers as submission.json, with the fields that the challenge asks for.

    Args:
        method: name of the method.
        team: the team's name, as registered for the challenge.
        authors: names of the authors.
        email: address for questions.
        institution: institution or company.
        country: country or region.

    Raises:
        InputError: a field is empty.
    """

    method: str
    team: str
    authors: Sequence[str]
    email: str
    institution: str
    country: str

    def __post_init__(self) -> None:
        if isinstance(self.authors, str):
            raise InputError(f"submission.authors={self.authors}: not a list; write submission.authors=[Ada,Alan]")
        for name, value in asdict(self).items():
            texts = value if name == "authors" else [value]
            if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
                raise InputError(f"submission.{name}={value}: the challenge requires a text; add one")

    def check(self, ids: Iterable[str]) -> None:
        """Checks that question ids have DriveLM's form.

        Raises:
            InputError: an id has another form.
        """
        if others := [id for id in ids if not _ID.fullmatch(id)]:
            form = "<scene>_<frame>_<number>"
            raise InputError(f"submission=drivelm: {others[0]} is no DriveLM id, {form}; use the challenge's file")

    def write(self, folder: Path, predictions: Collection[Prediction], planned: int) -> str:
        """Writes submission.json and returns the command that uploads it to the submitter's model repository.

        Raises:
            InputError: answers are missing, or the folder cannot be written.
        """
        answered = sum(_is_answered(row) for row in predictions)
        if missing := planned - answered:
            raise InputError(f"no {NAME}: {missing} of {planned} answers are missing; go on with resume={folder}")
        results = (
            {"id": row.id, "question": row.question, "answer": row.answer} for row in predictions if _is_answered(row)
        )
        write_list(folder / NAME, results, {**asdict(self), "authors": list(self.authors)}, "results", indent=4)
        return f"hf upload <user>/<repository> {folder / NAME} {NAME}"


def _is_answered(row: Prediction) -> bool:
    return row.answer is not None and row.error is None
