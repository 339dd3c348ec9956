"""MiniDrive as a data set: six-camera driving scenes, or clips, and questions in DriveLM's form, drawn on the fly."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from prune2drive.cameras import CAMERAS, camera_of, clip_views, time_of, view_name
from prune2drive.data.dataset import choose_cameras, fingerprint, multi_view_prompt
from prune2drive.data.subset import drawn
from prune2drive.errors import InputError, check_choice, check_whole
from prune2drive.files import write_json
from prune2drive.minidrive.clip import Clip, clip_name, make_clip
from prune2drive.minidrive.clip_questions import CLIP_KINDS, clip_questions
from prune2drive.minidrive.questions import VERSION, VERSIONS, Question, frame_questions
from prune2drive.minidrive.render import render
from prune2drive.minidrive.scene import DIFFICULTIES, FRAME, SPLITS, Scene, SceneObject
from prune2drive.minidrive.vocabulary import VEHICLES
from prune2drive.sample import ObjectBox, Prediction, Sample

FRAMES = {"train": 20_000, "search": 200, "val": 200, "test": 400}
RESOLUTION = 112
LOWEST, HIGHEST = 28, 4096  # resolutions
MOST_TIMES = 16
PER_FRAME = len(VERSIONS[VERSION])
STAGES = ("perception", "prediction", "planning", "behavior")


class MiniDrive:
    """A split of MiniDrive; a `prune2drive.data.dataset.Dataset`.

    A sample is a pure function of split, difficulty and index. Questions of a scene are neighbours, so the latest
    scene and its images are kept.

    Args:
        split: train, search, val or test; no scene is in two of them.
        difficulty: easy, standard or dense, which sets the size and number of objects and the amount of clutter; or
            photo: dense, with smaller objects, and images that look like photographs.
        resolution: width and height of an image in pixels, 28 to 4096.
        size: number of questions, the first of the split; by default all, of 20,000 frames of train, 400 of test, 200
            of search and of val.
        cameras: cameras to show, in this order; all six by default.
        sample: number of questions drawn at random from the whole split, instead of the first `size`.
        frames: number of frames drawn at random from the whole split, with all of their questions, instead of that.
        seed: seed of that random draw.
        version: 1 asks ten questions of a frame; 2 also one that needs two cameras, and one about its smallest object.
        times: how often a frame shows each camera, 1 to 16: at 2 and more it is a clip that ends in the frame, whose
            cameras are views over time, and is asked what moves, what came and what was seen before instead, in both
            versions the same.

    Raises:
        InputError: an argument has a value that it cannot have.
    """

    def __init__(
        self,
        split: str = "test",
        difficulty: str = "standard",
        resolution: int = RESOLUTION,
        size: int | None = None,
        cameras: Sequence[str] | None = None,
        sample: int | None = None,
        frames: int | None = None,
        seed: int = 0,
        version: int = VERSION,
        times: int = 1,
    ) -> None:
        check_choice("dataset.split", split, SPLITS)
        check_choice("dataset.difficulty", difficulty, DIFFICULTIES)
        check_choice("dataset.version", version, VERSIONS)
        check_whole("dataset.size", size, null=True)
        check_whole("dataset.resolution", resolution, LOWEST)
        if resolution > HIGHEST:
            raise InputError(f"dataset.resolution={resolution}: use at most {HIGHEST} pixels")
        check_whole("dataset.times", times)
        if times > MOST_TIMES:
            raise InputError(f"dataset.times={times}: clips have up to {MOST_TIMES} times")
        self.cameras = clip_views(choose_cameras(cameras, CAMERAS, "MiniDrive"), times)
        self.split, self.difficulty, self.resolution = split, difficulty, resolution
        self.version, self.times = version, times
        self.per_frame = len(VERSIONS[version] if times == 1 else CLIP_KINDS)
        everything = range(FRAMES[split] * self.per_frame)
        self._places: Sequence[int] = everything if size is None else range(size)
        if sample is not None and frames is not None:
            raise InputError("dataset.sample and dataset.frames are both set: leave one of them null")
        source = f"MiniDrive's {split} split"
        if sample is not None:
            self._places = drawn(everything, sample, seed, source)
        if frames is not None:
            chosen = drawn(range(FRAMES[split]), frames, seed, source, "frames")
            self._places = [frame * self.per_frame + at for frame in chosen for at in range(self.per_frame)]
        self._clip: tuple[int, Clip, list[Question]] | None = None
        self._images: tuple[int, dict[str, Image.Image]] | None = None

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def ids(self) -> list[str]:
        return [self._id(place) for place in self._places]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all ids, questions, cameras and the resolution."""
        shown = (f"{self.resolution}", *self.cameras)
        return fingerprint((name, self.question(index), *shown) for index, name in enumerate(self.ids))

    def __getitem__(self, index: int) -> Sample:
        scene, question = self._ask(index)
        at, side = self._places[index] // self.per_frame, self.resolution
        return Sample(
            id=self._id(self._places[index]),
            images=dict(self._clip_images(at)),
            question=question.text,
            prompt=multi_view_prompt(self.cameras, question.text),
            reference=question.reference,
            tags=question.tags,
            scene=scene.name,
            frame=scene.frame,
            kind=question.kind,
            objects=self._objects(self._clip_at(at)[0]),
            image_sizes=dict.fromkeys(self.cameras, (side, side)),
        )

    def question(self, index: int) -> str:
        return self._ask(index)[1].text

    def row(self, index: int) -> Prediction:
        scene, question = self._ask(index)
        return Prediction(
            self.ids[index],
            question.text,
            reference=question.reference,
            tags=question.tags,
            scene=scene.name,
            frame=scene.frame,
            kind=question.kind,
        )

    def frame(self, index: int) -> str:
        return self._scene_name(self._places[index]) + FRAME

    def kind(self, index: int) -> str:
        """Returns the kind of a question, a key of `QUESTION_KINDS`, or of `CLIP_KINDS`."""
        return self._ask(index)[1].kind

    def check(self) -> None:
        """Does nothing: no file can be missing."""

    def _ask(self, index: int) -> tuple[Scene, Question]:
        if not 0 <= index < len(self):
            raise InputError(f"question {index}: this MiniDrive {self.split} split has questions 0 to {len(self) - 1}")
        clip, questions = self._clip_at(self._places[index] // self.per_frame)
        return clip.now, questions[self._places[index] % self.per_frame]

    def _clip_at(self, at: int) -> tuple[Clip, list[Question]]:
        if self._clip is None or self._clip[0] != at:
            clip = make_clip(self.split, at, self.difficulty, self.times)
            asked = frame_questions(clip.now, self.version) if self.times == 1 else clip_questions(clip)
            self._clip = at, clip, asked
        return self._clip[1:]

    def _clip_images(self, at: int) -> dict[str, Image.Image]:
        if self._images is None or self._images[0] != at:
            scenes = self._clip_at(at)[0].scenes
            shown = [(view, scenes[time_of(view) or 0], camera_of(view)) for view in self.cameras]
            images = {view: photograph(scene, camera, self.resolution) for view, scene, camera in shown}
            self._images = at, images
        return self._images[1]

    def _objects(self, clip: Clip) -> tuple[ObjectBox, ...]:
        """Returns the objects of every time, each in the view that shows it."""
        seen = [
            (view_name(obj.camera, time if self.times > 1 else None), obj)
            for time, scene in enumerate(clip.scenes)
            for obj in scene.objects
        ]
        return tuple(_box(obj, view, self.resolution) for view, obj in seen if view in self.cameras)

    def _id(self, place: int) -> str:
        scene = self._scene_name(place)
        return f"{scene}_{scene}{FRAME}_{place % self.per_frame}"

    def _scene_name(self, place: int) -> str:
        return clip_name(self.split, place // self.per_frame, self.difficulty, self.times)

    def export(self, folder: Path) -> Path:
        """Writes the questions in DriveLM's layout: `v1_1_train_nus.json`, with images under `nuscenes/samples`.

        DriveLM numbers a frame's questions from 0, stage by stage, so questions of a random `sample` and of version 2
        have other ids in the file.

        Returns:
            The question file.

        Raises:
            InputError: the folder cannot be written, or a frame shows its cameras several times.
        """
        if self.times > 1:
            raise InputError(f"dataset.times={self.times}: DriveLM's layout has one image of a camera; export times=1")
        scenes: dict[str, Any] = {}
        try:
            for camera in self.cameras:
                (folder / "nuscenes" / "samples" / camera).mkdir(parents=True, exist_ok=True)
            for at, places in groupby(self._places, key=lambda place: place // self.per_frame):
                clip, questions = self._clip_at(at)
                scene = clip.now
                paths = {camera: f"samples/{camera}/{scene.name}__{camera}__0.jpg" for camera in self.cameras}
                for camera, path in paths.items():
                    (folder / "nuscenes" / path).write_bytes(render(scene, camera, self.resolution))
                frame = self._key_frame(scene, [questions[place % self.per_frame] for place in places], paths)
                scenes[scene.name] = {"scene_description": "A MiniDrive scene.", "key_frames": {scene.frame: frame}}
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None
        file = folder / "v1_1_train_nus.json"
        write_json(file, scenes, indent=1)
        return file

    def _key_frame(self, scene: Scene, questions: list[Question], paths: dict[str, str]) -> dict[str, Any]:
        """Returns DriveLM's record of a frame."""
        asked: dict[str, list[dict[str, Any]]] = {stage: [] for stage in STAGES}
        for question in questions:
            blank = dict.fromkeys(("C", "con_up", "con_down", "cluster", "layer"))
            asked[question.stage].append(
                {"Q": question.text, "A": question.reference, **blank, "tag": list(question.tags)}
            )
        shown = [obj for obj in scene.objects if obj.camera in self.cameras]
        return {
            "key_object_infos": {obj.tag: _object_info(obj, self.resolution) for obj in shown},
            "QA": asked,
            "image_paths": {camera: f"../nuscenes/{path}" for camera, path in paths.items()},
        }


def photograph(scene: Scene, camera: str, resolution: int = RESOLUTION) -> Image.Image:
    """Returns a camera's image of a scene, rendered to JPEG and decoded."""
    with Image.open(io.BytesIO(render(scene, camera, resolution))) as image:
        return image.convert("RGB")


def _box(obj: SceneObject, view: str, side: int) -> ObjectBox:
    info = _object_info(obj, side)
    label = f"{info['Category']}: {info['Visual_description'].rstrip('.')}"
    return ObjectBox(view, tuple(info["2d_bbox"]), label)


def _object_info(obj: SceneObject, side: int) -> dict[str, Any]:
    """Returns DriveLM's record of a key object; its box is in pixels of an image with that side."""
    category = "Vehicle" if obj.kind in VEHICLES else "Pedestrian" if obj.kind == "pedestrian" else "Traffic element"
    return {
        "Category": category,
        "Status": obj.status,
        "Visual_description": f"{obj.name.capitalize()}.",
        "2d_bbox": [round(edge * side, 1) for edge in obj.box],
    }
