"""Questions about nuScenes' key frames, each followed by the same instruction: what such data sets share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from prune2drive.data.dataset import choose_cameras, fingerprint, multi_view_prompt
from prune2drive.data.frame_photos import FramePhotos
from prune2drive.errors import InputError, shortened
from prune2drive.sample import Prediction, Sample


class Question(NamedTuple):
    """A question about a key frame.

    Args:
        frame: the frame's token in nuScenes.
        answer: the reference answer; None where the file has none.
        kind: the benchmark's type of question.
    """

    id: str
    scene: str
    frame: str
    text: str
    answer: str | None
    kind: str


class FrameQuestions:
    """A list of questions and their frames' photos; a `prune2drive.data.dataset.Dataset`.

    Args:
        file: the question file, for messages.
        questions: the questions, in order.
        paths: token of a frame -> camera -> photo.
        photos: reads photos and annotated objects.
        cameras: cameras to show, in order; None for all.
        instruction: what the prompt says behind a question; nothing if empty.

    Raises:
        InputError: a camera is not known, or a frame has none of the cameras.
    """

    def __init__(
        self,
        file: Path,
        questions: Sequence[Question],
        paths: Mapping[str, Mapping[str, str]],
        photos: FramePhotos,
        cameras: Sequence[str] | None,
        instruction: str,
    ) -> None:
        self.file, self.instruction, self._questions, self._photos = file, instruction, questions, photos
        self.ids = [question.id for question in questions]
        known = tuple(dict.fromkeys(camera for shown in paths.values() for camera in shown))
        self.cameras = choose_cameras(cameras, known, str(file))
        self._paths = {
            token: {camera: shown[camera] for camera in self.cameras if camera in shown}
            for token, shown in paths.items()
        }
        if blind := [token for token, shown in self._paths.items() if not shown]:
            where = f"{file}: frame {shortened(blind[0])}"
            raise InputError(f"{where}: no image of {', '.join(self.cameras)}; add other cameras to dataset.cameras")

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint((q.id, q.text, *self._paths[q.frame].values(), self.instruction) for q in self._questions)

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Sample:
        question = self._questions[index]
        images = self._photos.images(self._paths[question.frame])
        objects, sizes = self._photos.annotated(question.frame, images)
        asked = f"{question.text}\n{self.instruction}" if self.instruction else question.text
        return Sample(
            id=question.id,
            images=images,
            question=question.text,
            prompt=multi_view_prompt(tuple(images), f" {asked}"),
            reference=question.answer,
            scene=question.scene,
            frame=question.frame,
            kind=question.kind,
            objects=objects,
            image_sizes=sizes,
        )

    def question(self, index: int) -> str:
        return self._questions[index].text

    def row(self, index: int) -> Prediction:
        id, scene, frame, text, answer, kind = self._questions[index]
        return Prediction(id, text, reference=answer, scene=scene, frame=frame, kind=kind)

    def frame(self, index: int) -> str:
        return self._questions[index].frame

    def check(self) -> None:
        self._photos.check(self._paths.values())
        if self._photos.tables:
            for token in self._paths:
                self._photos.tables.scene(token)
