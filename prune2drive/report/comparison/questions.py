"""Reads what each run scored on each question, and keeps the questions that all runs have in common.

Shape suffixes: R runs, N questions, G groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from sys import intern
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prune2drive.errors import InputError
from prune2drive.report.camera_names import CameraNames
from prune2drive.report.comparison.runs import Fault, Run
from prune2drive.report.finished_run import StoredRows, metric_of
from prune2drive.sample import Prediction

FEW = 2  # values below which a unit cannot be drawn
UNITS = ("scene", "frame", "question")


class Question(NamedTuple):
    """What the rows of a question say of it.

    Args:
        digest: hash of its id, text and reference.
        cameras: those that its text or reference names.
    """

    digest: int
    kind: str
    scene: str
    frame: str
    cameras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Questions:
    """Scores by question of several runs over the questions that all of them have.

    Args:
        runs: the runs that are compared.
        label: what is scored, in words.
        score_RN: each run's scores.
        kinds: the kinds of question.
        kind_N: each question's kind, by its place in `kinds`.
        unit: what is drawn by the bootstrap: scene, frame or question.
        group_N: each question's scene, frame or own number, from 0.
        left_out: number of questions that some of the runs lack.
        cameras: the cameras that each question names.
    """

    runs: tuple[Run, ...]
    label: str
    score_RN: NDArray[np.float64]
    kinds: tuple[str, ...]
    kind_N: NDArray[np.int64]
    unit: str
    group_N: NDArray[np.int64]
    left_out: int
    cameras: tuple[tuple[str, ...], ...] = ()

    @property
    def groups(self) -> int:
        """The number of scenes, frames or questions that are drawn."""
        return int(self.group_N.max()) + 1


class _Scores(NamedTuple):
    place_N: NDArray[np.int64]
    score_N: NDArray[np.float64]


class _NotedRows(StoredRows):
    """The rows of a run folder, which are noted as a metric goes through them, so that they are read once.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.notes: dict[str, Question] = {}

    def __iter__(self) -> Iterator[Prediction]:
        for row in super().__iter__():
            if row.id not in self.notes:
                digest = hash((row.id, row.question, row.reference))
                cameras = tuple(row.full_counts)
                named = tuple(cameras[at] for at in _names(cameras).mentioned(f"{row.question}\n{row.reference or ''}"))
                self.notes[row.id] = Question(digest, intern(row.kind), intern(row.scene), intern(row.frame), named)
            yield row


@cache
def _names(cameras: tuple[str, ...]) -> CameraNames:
    return CameraNames(cameras)


def read_questions(runs: Sequence[Run]) -> tuple[Questions | None, list[Fault]]:
    """Reads the scores of the runs, one run at a time.

    Returns:
        The scores, or None where fewer than two runs have any; and the runs that have none, with why.

    Raises:
        InputError: the runs share no question.
    """
    asked: dict[int, int] = {}
    questions: list[Question] = []
    read: list[tuple[Run, _Scores]] = []
    faults: list[Fault] = []
    labels: dict[str, None] = {}
    for run in runs:
        try:
            metric, rows = metric_of(run.run), _NotedRows(run.path)
            scores = metric.by_question(rows)
            if not scores:
                raise InputError("no answer has a score of its own")
        except InputError as error:
            faults.append(Fault(run.path, str(error).removeprefix(f"{run.path}/"), is_lost=False))
            continue
        labels[metric.question_score] = None
        for name in scores:
            note = rows.notes[name]
            if asked.setdefault(note.digest, len(questions)) == len(questions):
                questions.append(note)
        place_N = np.array([asked[rows.notes[name].digest] for name in scores], dtype=np.int64)
        read.append((run, _Scores(place_N, np.array(list(scores.values()), dtype=float))))
    if len(read) < 2:
        return None, faults
    return _common(read, questions, " or ".join(labels)), faults


def _common(read: Sequence[tuple[Run, _Scores]], questions: Sequence[Question], label: str) -> Questions:
    """Returns the scores of the questions that all runs have.

    Raises:
        InputError: there is none.
    """
    asked_by_N = np.zeros(len(questions), dtype=np.int64)
    for _, scores in read:
        asked_by_N[np.unique(scores.place_N)] += 1
    common_N = np.flatnonzero(asked_by_N == len(read))
    if not len(common_N):
        raise InputError(f"{_strangers(read)}: they share no scored question; compare runs over the same questions")
    score_RN = np.empty((len(read), len(common_N)))
    for row, (_, scores) in enumerate(read):
        whole_N = np.empty(len(questions))
        whole_N[scores.place_N] = scores.score_N
        score_RN[row] = whole_N[common_N]
    chosen = [questions[place] for place in common_N]
    kinds, kind_N = _numbered([question.kind for question in chosen])
    unit, group_N = _groups(chosen)
    runs, left_out = tuple(run for run, _ in read), len(questions) - len(common_N)
    cameras = tuple(question.cameras for question in chosen)
    return Questions(runs, label, score_RN, kinds, kind_N, unit, group_N, left_out, cameras)


def _strangers(read: Sequence[tuple[Run, _Scores]]) -> str:
    """Names two runs that share no question, or else all, which share none together."""
    first, places = read[0][0], read[0][1].place_N
    other = next((run for run, scores in read[1:] if not np.intersect1d(places, scores.place_N).size), None)
    return f"{first.path} and {other.path}" if other else f"{first.path} and {len(read) - 1} others"


def _groups(questions: Sequence[Question]) -> tuple[str, NDArray[np.int64]]:
    """Returns the largest unit of which there are several, and each question's.

    A question without a scene, or without a frame, is one of its own.
    """
    own = [str(number) for number in range(len(questions))]
    units = {
        "scene": [question.scene or name for question, name in zip(questions, own, strict=True)],
        "frame": [f"{q.scene} {q.frame}" if q.frame else name for q, name in zip(questions, own, strict=True)],
        "question": own,
    }
    if not any(question.scene for question in questions):
        units.pop("scene")
    if not any(question.frame for question in questions):
        units.pop("frame")
    unit = next((unit for unit, names in units.items() if len(set(names)) >= FEW), "question")
    return unit, _numbered(units[unit])[1]


def _numbered(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Returns the different names in the order in which they come, and each one's number."""
    numbers: dict[str, int] = {}
    number_N = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
    return tuple(numbers), number_N
