"""Writes a submission to GoldenViewVQA's shared task (evaluator/ of groundlm/grouplm_emnlp2026).

One JSON object a line: `question_id`, `predicted_view` and `predicted_answer_id`, and no other field. The evaluator
refuses a whole file for one row without a view or an option, and for one question too few.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from prune2drive.errors import InputError, shortened
from prune2drive.files import write_atomically
from prune2drive.metrics.goldenview import Named, named
from prune2drive.sample import Prediction

NAME = "submission.jsonl"
EVALUATOR = "https://huggingface.co/spaces/YimuWang/GroundLM-2026-Eval"
LETTERS = ("A", "B", "C", "D")
_ID = re.compile(r"[a-z]+_\d+_[a-z_]+")  # such as sfall_0005_intent_prediction


@dataclass(frozen=True)
class GoldenViewSubmission:
    """Writes the view and the option that each answer names as submission.jsonl.

    Args:
        unread: the view and the option to submit, such as `CAM_FRONT A`, in place of those that an answer does not
            name; None writes no file where there is such an answer.

    Raises:
        InputError: `unread` names no view or no option.
    """

    unread: str | None = None

    def __post_init__(self) -> None:
        if self.unread is not None and None in _named(str(self.unread)):
            raise InputError(
                f"submission.unread={shortened(self.unread)}: names no view or no option; write 'CAM_FRONT A', say"
            )

    def check(self, ids: Iterable[str]) -> None:
        """Checks that question ids have GoldenViewVQA's form.

        Raises:
            InputError: an id has another form.
        """
        if others := [id for id in ids if not _ID.fullmatch(id)]:
            form = "<name>_<number>_<kind of question>"
            raise InputError(
                f"submission=goldenview: {shortened(others[0])} is no GoldenViewVQA id, {form}; use dataset=goldenview"
            )

    def write(self, folder: Path, predictions: Collection[Prediction], planned: int) -> str:
        """Writes submission.jsonl and returns where to upload it, with the number of answers that could not be read.

        Raises:
            InputError: answers are missing or cannot be read, or the folder cannot be written.
        """
        found = {row.id: _named(row.answer) for row in predictions if row.answer is not None and row.error is None}
        if missing := planned - len(found):
            raise InputError(f"no {NAME}: {missing} of {planned} answers are missing; go on with resume={folder}")
        unread = [id for id, names in found.items() if None in names]
        if unread and self.unread is None:
            raise InputError(
                f"no {NAME}: {len(unread)} of {planned} answers name no view or no option, such as that to {unread[0]};"
                f" set submission.unread='CAM_FRONT A', say, to submit that in their place, and resume={folder}"
            )
        instead = _named(self.unread or "")
        write_atomically(folder / NAME, (_line(id, names, instead) for id, names in found.items()))
        note = f"; {len(unread)} answers name no view or no option: '{self.unread}' stands there" if unread else ""
        return f"{folder / NAME} to the task goldenviewvqa of {EVALUATOR}{note}"


def _named(answer: str) -> Named:
    """Returns the view and the option that an answer names; None for an option that the benchmark has not."""
    names = named(answer)
    return names if names.letter in LETTERS else names._replace(letter=None)


def _line(id: str, names: Named, instead: Named) -> str:
    row = {
        "question_id": id,
        "predicted_view": names.view or instead.view,
        "predicted_answer_id": names.letter or instead.letter,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"
