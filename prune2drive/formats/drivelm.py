"""Reads the questions of DriveLM's nested files: scene -> key frame -> questions by stage (`test_eval.json`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from prune2drive.errors import InputError, shortened
from prune2drive.files import field

STAGES = ("perception", "prediction", "planning", "behavior")  # official numbering counts in this order


class Asked(NamedTuple):
    """One question of a key frame.

    Args:
        kind: the stage: perception, prediction, planning or behavior.
        number: place among the questions of its frame, through all stages; the last part of the official id.
        entry: the key frame in the file, with its images and objects.
        where: the place of the frame in the file, for messages.
    """

    scene: str
    frame: str
    kind: str
    number: int
    text: str
    answer: str | None
    tags: tuple[int, ...]
    entry: dict[str, Any]
    where: str

    @property
    def id(self) -> str:
        """The official id: scene, frame and number."""
        return f"{self.scene}_{self.frame}_{self.number}"


def read_scenes(scenes: Any, file: str) -> Iterator[Asked]:
    """Yields the questions of a file in the official order.

    Args:
        scenes: the file's content.
        file: the file's name, for messages.

    Raises:
        InputError: something is not as DriveLM writes it.
    """
    for scene in scenes if isinstance(scenes, dict) else field({"scenes": scenes}, "scenes", dict, file):
        for frame, entry in field(scenes[scene], "key_frames", dict, f"{file}: scene {shortened(scene)}").items():
            where = place(file, scene, frame)
            asked = field(entry, "QA", dict, where)
            listed = {stage: field(asked, stage, list, f"{where}, QA", optional=True) for stage in STAGES}
            rows = [(stage, row) for stage in STAGES for row in listed[stage]]
            for number, (kind, row) in enumerate(rows):
                at = f"{where}, question {number}"
                text, answer = field(row, "Q", str, at), field(row, "A", str, at, optional=True)
                tags = tuple(field(row, "tag", list, at, optional=True))
                if not all(isinstance(tag, int) for tag in tags):
                    raise InputError(f"{at}: field 'tag' should list whole numbers, found {shortened(list(tags))}")
                yield Asked(scene, frame, kind, number, text, answer or None, tags, entry, where)


def place(file: str, scene: str, frame: str) -> str:
    """Names the place of a frame in a file, for messages."""
    return f"{file}: scene {shortened(scene)}, frame {shortened(frame)}"
