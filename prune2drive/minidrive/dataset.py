"""MiniDrive: six-camera driving scenes and questions in DriveLM's form, drawn on the fly.

Every sample is a pure function of split, difficulty and index. To write a split as DriveLM's files:

    python -m prune2drive.minidrive.dataset --export DIR --split test
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from prune2drive.cameras import CAMERAS
from prune2drive.data.dataset import fingerprint, multi_view_prompt
from prune2drive.data.subset import drawn
from prune2drive.errors import InputError
from prune2drive.minidrive.questions import KINDS_ASKED, Question, frame_questions
from prune2drive.minidrive.render import render
from prune2drive.minidrive.scene import DIFFICULTIES, SPLITS, Scene, Thing, make_scene, scene_name
from prune2drive.minidrive.vocabulary import VEHICLES
from prune2drive.sample import ObjectBox, Sample

SIZES = {"train": 200_000, "search": 2_000, "val": 2_000, "test": 4_000}
RESOLUTION = 112
PER_FRAME = len(KINDS_ASKED)
STAGES = ("perception", "prediction", "planning", "behavior")


class MiniDrive:
    """A split of MiniDrive; a `prune2drive.data.dataset.Dataset`.

    The questions of a scene follow one another, so the last scene's images stay decoded.

    Args:
        split: train, search, val or test; no scene is in two of them.
        difficulty: easy, standard or dense: how small the objects are, and how much there is around them.
        resolution: pixels a side of each camera's image.
        size: number of questions; by default 200,000 to train, 4,000 to test, 2,000 to search and to validate.
        cameras: which cameras to show, in this order.
        sample: that many questions at random of the whole split, instead of its first `size`.
        seed: of the sample.

    Raises:
        InputError: a value that none of these can have.
    """

    def __init__(
        self,
        split: str = "test",
        difficulty: str = "standard",
        resolution: int = RESOLUTION,
        size: int | None = None,
        cameras: Sequence[str] = CAMERAS,
        sample: int | None = None,
        seed: int = 0,
    ) -> None:
        make_scene(split, 0, difficulty)  # says which names are wrong
        if size is not None and size < 1:
            raise InputError(f"dataset.size={size}: MiniDrive needs at least one question")
        if not 28 <= resolution <= 4096:
            raise InputError(f"dataset.resolution={resolution}: choose from 28 to 4096 pixels a side")
        self.cameras = (cameras,) if isinstance(cameras, str) else tuple(cameras)
        if unknown := [camera for camera in self.cameras if camera not in CAMERAS]:
            raise InputError(f"dataset.cameras: no camera {unknown[0]!r} in MiniDrive; it has {', '.join(CAMERAS)}")
        if not self.cameras or len(set(self.cameras)) < len(self.cameras):
            raise InputError(f"dataset.cameras={list(self.cameras)}: name each camera once, at least one")
        self.split, self.difficulty, self.resolution = split, difficulty, resolution
        self._places: Sequence[int] = range(SIZES[split] if size is None else size)
        if sample is not None:
            self._places = drawn(range(SIZES[split]), sample, seed, f"MiniDrive's {split} split")
        self._scene: tuple[int, Scene, list[Question]] | None = None
        self._images: tuple[int, dict[str, Image.Image]] | None = None

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def ids(self) -> list[str]:
        return [self._id(place) for place in self._places]

    @cached_property
    def fingerprint(self) -> str:
        shown = (f"{self.resolution}", *self.cameras)
        return fingerprint((name, self.question(index), *shown) for index, name in enumerate(self.ids))

    def __getitem__(self, index: int) -> Sample:
        """The sample at an index.

        Raises:
            InputError: an index outside [0, size).
        """
        scene, question = self._ask(index)
        side = self.resolution
        return Sample(
            id=self._id(self._places[index]),
            images=dict(self._photos(self._places[index] // PER_FRAME, scene)),
            question=question.text,
            prompt=multi_view_prompt(self.cameras, question.text),
            reference=question.answer,
            tags=question.tags,
            scene=scene.name,
            frame=_frame(scene),
            objects=tuple(_object(thing, side) for thing in scene.things if thing.camera in self.cameras),
            image_sizes=dict.fromkeys(self.cameras, (side, side)),
        )

    def question(self, index: int) -> str:
        return self._ask(index)[1].text

    def frame(self, index: int) -> str:
        return _frame(self._ask(index)[0])

    def kind(self, index: int) -> str:
        """Which kind of question it is: a key of `KINDS_ASKED`."""
        return self._ask(index)[1].kind

    def check(self) -> None:
        """Nothing can be missing: there is nothing on disk."""

    def _ask(self, index: int) -> tuple[Scene, Question]:
        if not 0 <= index < len(self):
            raise InputError(f"question {index}: this MiniDrive {self.split} split has questions 0 to {len(self) - 1}")
        scene, questions = self._at(self._places[index] // PER_FRAME)
        return scene, questions[self._places[index] % PER_FRAME]

    def _at(self, at: int) -> tuple[Scene, list[Question]]:
        if self._scene is None or self._scene[0] != at:
            scene = make_scene(self.split, at, self.difficulty)
            self._scene = at, scene, frame_questions(scene)
        return self._scene[1:]

    def _photos(self, at: int, scene: Scene) -> dict[str, Image.Image]:
        if self._images is None or self._images[0] != at:
            self._images = at, {camera: photograph(scene, camera, self.resolution) for camera in self.cameras}
        return self._images[1]

    def _id(self, place: int) -> str:
        scene = scene_name(self.split, place // PER_FRAME, self.difficulty)
        return f"{scene}_{scene}-0_{place % PER_FRAME}"

    def export(self, folder: Path) -> Path:
        """Writes the questions as DriveLM lays them out: `v1_1_train_nus.json`, and images under `nuscenes/samples`.

        The file counts a frame's questions from 0, so those of a sample get other ids there.

        Returns:
            the question file.

        Raises:
            InputError: the folder cannot be written.
        """
        scenes: dict[str, Any] = {}
        try:
            for camera in self.cameras:
                (folder / "nuscenes" / "samples" / camera).mkdir(parents=True, exist_ok=True)
            for at, places in groupby(self._places, key=lambda place: place // PER_FRAME):
                scene, questions = self._at(at)
                paths = {camera: f"samples/{camera}/{scene.name}__{camera}__0.jpg" for camera in self.cameras}
                for camera, path in paths.items():
                    (folder / "nuscenes" / path).write_bytes(render(scene, camera, self.resolution))
                frame = self._frame(scene, [questions[place % PER_FRAME] for place in places], paths)
                scenes[scene.name] = {"scene_description": "A MiniDrive scene.", "key_frames": {_frame(scene): frame}}
            file = folder / "v1_1_train_nus.json"
            file.write_text(json.dumps(scenes, indent=1), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
        return file

    def _frame(self, scene: Scene, questions: list[Question], paths: dict[str, str]) -> dict[str, Any]:
        asked: dict[str, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
        for question in questions:
            blank = dict.fromkeys(("C", "con_up", "con_down", "cluster", "layer"))
            asked[question.stage].append(
                {"Q": question.text, "A": question.answer, **blank, "tag": list(question.tags)}
            )
        shown = [thing for thing in scene.things if thing.camera in self.cameras]
        return {
            "key_object_infos": {thing.tag: _info(thing, self.resolution) for thing in shown},
            "QA": asked,
            "image_paths": {camera: f"../nuscenes/{path}" for camera, path in paths.items()},
        }


def photograph(scene: Scene, camera: str, resolution: int = RESOLUTION) -> Image.Image:
    """A camera's picture of a scene, decoded."""
    with Image.open(io.BytesIO(render(scene, camera, resolution))) as image:
        return image.convert("RGB")


def _frame(scene: Scene) -> str:
    return f"{scene.name}-0"


def _object(thing: Thing, side: int) -> ObjectBox:
    info = _info(thing, side)
    return ObjectBox(
        thing.camera, tuple(info["2d_bbox"]), f"{info['Category']}: {info['Visual_description'].rstrip('.')}"
    )


def _info(thing: Thing, side: int) -> dict[str, Any]:
    """DriveLM's note on a key object; its box is in pixels of the image as written."""
    category = (
        "Vehicle" if thing.kind in VEHICLES else "Pedestrian" if thing.kind == "pedestrian" else "Traffic element"
    )
    return {
        "Category": category,
        "Status": thing.status,
        "Visual_description": f"{thing.name.capitalize()}.",
        "2d_bbox": [round(edge * side, 1) for edge in thing.box],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a split of MiniDrive as DriveLM's files.")
    parser.add_argument("--export", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--split", default="test", help=f"one of {', '.join(SPLITS)} (default: test)")
    parser.add_argument("--difficulty", default="standard", help=f"one of {', '.join(DIFFICULTIES)}")
    parser.add_argument("--resolution", type=int, default=RESOLUTION, help="pixels a side of each image")
    parser.add_argument("--size", type=int, default=None, help="number of questions (default: the split's)")
    options = parser.parse_args(arguments)
    try:
        dataset = MiniDrive(options.split, options.difficulty, options.resolution, options.size)
        file = dataset.export(options.export)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(f"{file}: {len(dataset)} questions")


if __name__ == "__main__":
    main()
