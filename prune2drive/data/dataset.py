"""Defines what every dataset offers, and the prompt that shows several cameras in one message."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from prune2drive.cameras import camera_of, spoken_name
from prune2drive.errors import InputError, shortened
from prune2drive.sample import IMAGE_MARKER, Prediction, Sample

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


class Dataset(Protocol):
    """Questions about camera images, in a fixed order; only `__getitem__` reads images."""

    @property
    def ids(self) -> Sequence[str]:
        """The unique id of every question."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """All cameras that samples may show, in the order in which prompts show them."""

    @property
    def fingerprint(self) -> str:
        """Hash of all ids, questions and image names."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Reads a question and its images.

        Raises:
            InputError: an image is missing or cannot be read.
        """

    def question(self, index: int) -> str:
        """Returns the text of a question."""

    def row(self, index: int) -> Prediction:
        """Returns a question's row without an answer; its reference is None where the file holds questions only."""

    def frame(self, index: int) -> str:
        """Returns the name of a question's frame; questions of one frame show the same images."""

    def check(self) -> None:
        """Checks, before a model is loaded, for anything that would stop a run later.

        Raises:
            InputError: images or answers are missing, for example: the first of them, and how many.
        """


def fingerprint(asked: Iterable[tuple[str, ...]]) -> str:
    """Hashes rows of (id, question, image name, ...), with the same result on every machine."""
    digest = hashlib.sha256()
    for row in asked:
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def frame_name(dataset: Dataset, index: int) -> str:
    """Returns the name of a question's frame; a question without one is a frame of its own."""
    return dataset.frame(index) or dataset.ids[index]


def group_by_frame(dataset: Dataset, indices: Iterable[int]) -> list[list[int]]:
    """Groups questions, given by their indices, by frame; frames in the order of their first question."""
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(frame_name(dataset, index), []).append(index)
    return list(groups.values())


def check_unique(ids: Iterable[str], file: Path, name: str) -> None:
    """Refuses a file in which two questions have one id, which the file calls `name`.

    Raises:
        InputError: an id occurs twice.
    """
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            raise InputError(f"{file}: {name} {shortened(id)} occurs twice; each must be unique")
        seen.add(id)


def check_answered(answers: Mapping[str, str | None], file: Path) -> None:
    """Refuses a file in which some questions have an answer and others have none.

    Args:
        answers: question id -> reference answer.

    Raises:
        InputError: an answer is missing.
    """
    missing = [id for id, answer in answers.items() if answer is None]
    if 0 < len(missing) < len(answers):
        name = f"question {shortened(missing[0])}"
        raise InputError(f"{file}: {name} has no answer, though others have; fill it in or remove it")


def choose_cameras(wanted: Sequence[str] | None, known: Sequence[str], source: str) -> tuple[str, ...]:
    """Returns the cameras that prompts show, in order.

    Args:
        wanted: camera names, or a single one; None for all cameras of the dataset.
        known: all cameras of the dataset.
        source: the dataset's name or file, for the message.

    Raises:
        InputError: a camera is unknown or named twice, or there is none.
    """
    chosen = tuple(known) if wanted is None else (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if unknown := [camera for camera in chosen if camera not in known]:
        raise InputError(f"dataset.cameras: no camera {unknown[0]!r} in {source}; it has {', '.join(known)}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"dataset.cameras={list(chosen)}: name each camera once, at least one of {', '.join(known)}")
    return chosen


def multi_view_prompt(cameras: Sequence[str], question: str) -> str:
    """Returns Prune2Drive's prompt: numbered images, the names of their views, then the question, without a space.

    Views of one camera at several times are counted, and said to go from past to current.
    An image marker in the question is replaced, since a marker stands for an image.

    Raises:
        InputError: no camera.
    """
    if not cameras:
        raise InputError(f"no camera to show with the question '{shortened(question)}'; a prompt needs at least one")
    times = Counter(map(camera_of, cameras))
    names = [f"{spoken_name(camera)} view" for camera in times]
    question = question.replace(IMAGE_MARKER, "[image]")
    if len(cameras) == 1:
        return f"1: {IMAGE_MARKER}. This image is the {names[0]} of the ego vehicle.{question}"
    images = " ".join(f"{number}: {IMAGE_MARKER}" for number, _ in enumerate(cameras, start=1))
    shown = f"These {_number(len(cameras))} images are"
    if len(cameras) == len(times):
        return f"{images}. {shown} the {_listed(names)} of the ego vehicle.{question}"
    counted = [f"{_number(count)} of the {name}" for name, count in zip(names, times.values(), strict=True)]
    return f"{images}. {shown} {_listed(counted)} of the ego vehicle, from past to current.{question}"


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
