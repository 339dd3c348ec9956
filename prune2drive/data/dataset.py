"""What every dataset offers, and the prompt that shows several cameras in one message."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

from prune2drive.cameras import spoken_name
from prune2drive.errors import InputError
from prune2drive.sample import IMAGE_MARKER, Sample

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


class Dataset(Protocol):
    """Questions about camera images, in a fixed order; all but `__getitem__` works without reading an image."""

    @property
    def ids(self) -> Sequence[str]:
        """One id a question, unique."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Every camera that can occur, in the order in which prompts show them."""

    @property
    def fingerprint(self) -> str:
        """Hash of what is asked: ids, questions and image names (see `fingerprint`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """The sample with its images.

        Raises:
            InputError: an image that is missing or cannot be read; names the file.
        """

    def question(self, index: int) -> str:
        """The question alone."""

    def reference(self, index: int) -> str | None:
        """Returns the answer to compare with; None where the file holds questions only."""

    def frame(self, index: int) -> str:
        """The frame it is about; questions of one frame show the same images."""

    def check(self) -> None:
        """Looks for whatever would stop a run later, before a model is loaded.

        Raises:
            InputError: for example, missing image files: the first of them, and how many.
        """


def fingerprint(asked: Iterable[tuple[str, ...]]) -> str:
    """A hash of (id, question, image name, ...) for each question, the same on every machine."""
    digest = hashlib.sha256()
    for row in asked:
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def choose_cameras(wanted: Sequence[str] | None, known: Sequence[str], source: str) -> tuple[str, ...]:
    """The cameras to show.

    Args:
        wanted: in this order; a single name will do; all that are known by default.
        known: every camera there is.
        source: what they are in, for the message.

    Raises:
        InputError: a camera that is not known, one named twice, or none at all.
    """
    chosen = tuple(known) if wanted is None else (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if unknown := [camera for camera in chosen if camera not in known]:
        raise InputError(f"dataset.cameras: no camera {unknown[0]!r} in {source}; it has {', '.join(known)}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"dataset.cameras={list(chosen)}: name each camera once, at least one of {', '.join(known)}")
    return chosen


def multi_view_prompt(cameras: Sequence[str], question: str) -> str:
    """The original's prompt: the numbered images, which view each one is, then the question (no space between).

    Any number of cameras reads naturally. A marker inside the question is defused, since each marker
    stands for one of the images.

    Raises:
        InputError: no camera.
    """
    if not cameras:
        raise InputError(f"no camera to show with the question {question!r}; a prompt needs at least one")
    views = [f"{spoken_name(camera)} view" for camera in cameras]
    question = question.replace(IMAGE_MARKER, "[image]")
    if len(views) == 1:
        return f"1: {IMAGE_MARKER}. This image is the {views[0]} of the ego vehicle.{question}"
    images = " ".join(f"{number}: {IMAGE_MARKER}" for number, _ in enumerate(views, start=1))
    count = NUMBERS[len(views)] if len(views) < len(NUMBERS) else str(len(views))
    listed = f"{', '.join(views[:-1])} and {views[-1]}"
    return f"{images}. These {count} images are the {listed} of the ego vehicle.{question}"
