"""Reads DriveLM-nuScenes (arXiv 2312.14150) from the challenge's own files.

They have two layouts: scene -> key frame -> questions by stage (`v1_1_train_nus.json`, the question-only
`v1_1_val_nus_q_only.json`, `test_eval.json`), and the flat list of conversations of `test_llama.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from PIL import Image

from prune2drive.data.dataset import check_unique, choose_cameras, fingerprint, multi_view_prompt
from prune2drive.data.frame_photos import Annotated, FramePhotos
from prune2drive.data.images import inside
from prune2drive.data.nuscenes import NuScenesTables
from prune2drive.data.subset import Subset
from prune2drive.errors import InputError, shortened
from prune2drive.files import field, kind_of, read_json
from prune2drive.formats.drivelm import place, read_scenes
from prune2drive.sample import IMAGE_MARKER, ObjectBox, Prediction, Sample

QUESTION_FILES = ("v1_1_train_nus.json", "v1_1_val_nus_q_only.json", "test_eval.json", "test_llama.json")


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One moment of a scene.

    Args:
        paths: camera -> image path below the nuScenes folder.
        fault: why the frame has no images, where the file does not name them.
    """

    scene: str
    token: str
    paths: dict[str, str]
    objects: tuple[ObjectBox, ...] = ()
    fault: str = ""


class Question(NamedTuple):
    """A question of the file, with its reference answer, scoring tags and stage."""

    id: str
    frame: Frame
    text: str
    answer: str | None
    tags: tuple[int, ...]
    kind: str = ""


class DriveLM:
    """A DriveLM question file and its camera images; a `prune2drive.data.dataset.Dataset`.

    The last frame's images stay decoded, since the questions of a frame follow one another.

    Args:
        root: folder of the question files.
        questions: question file, relative to `root`; by default the first of `QUESTION_FILES` that exists.
        images: folder that holds nuScenes' `samples/`; by default `nuscenes`, or else `root/nuscenes`.
        nuscenes: folder of nuScenes' tables, from which a frame's images and all its annotated objects are then taken,
            instead of DriveLM's key objects.
        version: version of nuScenes' tables.
        cameras: cameras to show, in order; by default all, in the file's order.
        **subset: options of `Subset`, which chooses the questions.

    Raises:
        InputError: a file is missing, or not as DriveLM writes it.
    """

    def __init__(
        self,
        root: str | Path,
        questions: str | Path | None = None,
        images: str | Path | None = None,
        nuscenes: str | Path | None = None,
        version: str = "v1.0-trainval",
        cameras: Sequence[str] | None = None,
        **subset: Any,
    ) -> None:
        part = Subset.of(subset)
        self.file = _question_file(Path(root).expanduser(), questions)
        self.images = Path(images or nuscenes or Path(root) / "nuscenes").expanduser()
        everything = _read(self.file)
        self._is_answered = any(question.answer is not None for question in everything)
        frames = [question.frame for question in everything]
        chosen = part.choose([frame.scene for frame in frames], self.file, list(map(id, frames)))
        self._questions = [everything[place] for place in chosen]
        self.ids = [question.id for question in self._questions]
        self._frames = list({id(question.frame): question.frame for question in self._questions}.values())
        self._tables = NuScenesTables(nuscenes, version) if nuscenes else None
        self._photos = FramePhotos(self.images, self._tables)
        if self._tables:
            self._take_paths(self._tables)
        known = dict.fromkeys(camera for frame in self._frames for camera in frame.paths)
        if not known:
            raise InputError(self._frames[0].fault)
        self.cameras = choose_cameras(cameras, tuple(known), str(self.file))
        if blind := [frame for frame in self._frames if not self._paths(frame) and not frame.fault]:
            where = place(str(self.file), blind[0].scene, blind[0].token)
            raise InputError(f"{where}: no image of {', '.join(self.cameras)}; add other cameras to dataset.cameras")

    @cached_property
    def fingerprint(self) -> str:
        shown = {id(frame): tuple(self._paths(frame).values()) for frame in self._frames}
        return fingerprint((question.id, question.text, *shown[id(question.frame)]) for question in self._questions)

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Sample:
        question = self._questions[index]
        if fault := self._fault(question):
            raise InputError(fault)
        frame = question.frame
        images = self._photos.images(self._paths(frame))
        objects, sizes = self._annotated(frame, images)
        return Sample(
            id=question.id,
            images=images,
            question=question.text,
            prompt=multi_view_prompt(tuple(images), question.text),
            reference=question.answer,
            tags=question.tags,
            scene=frame.scene,
            frame=frame.token,
            kind=question.kind,
            objects=objects,
            image_sizes=sizes,
        )

    def question(self, index: int) -> str:
        return self._questions[index].text

    def row(self, index: int) -> Prediction:
        id, frame, text, answer, tags, kind = self._questions[index]
        return Prediction(id, text, reference=answer, tags=tags, scene=frame.scene, frame=frame.token, kind=kind)

    def frame(self, index: int) -> str:
        return self._questions[index].frame.token

    def check(self) -> None:
        if faults := [fault for question in self._questions if (fault := self._fault(question))]:
            raise InputError(f"{faults[0]} ({len(faults)} such questions; on_error=skip leaves them out)")
        self._photos.check(map(self._paths, self._frames))

    def _fault(self, question: Question) -> str:
        """Says why a question cannot be asked; answers count as missing only where the file has some."""
        if self._is_answered and question.answer is None:
            name = shortened(question.id)
            return f"{self.file}: question {name} has no answer, though others have; fill it in or remove it"
        return "" if self._tables else question.frame.fault

    def _take_paths(self, tables: NuScenesTables) -> None:
        """Replaces the image paths of all frames by those of nuScenes' tables."""
        for frame in self._frames:
            try:
                paths = tables.paths(frame.token)
            except InputError as error:
                raise InputError(f"{place(str(self.file), frame.scene, frame.token)}: {error}") from None
            frame.paths.clear()
            frame.paths.update(paths)

    def _annotated(self, frame: Frame, images: Mapping[str, Image.Image]) -> Annotated:
        """Returns the objects of a frame, and the image size of each camera to which their boxes refer."""
        if self._tables:
            return self._photos.annotated(frame.token, images)
        shown = tuple(box for box in frame.objects if box.camera in images)
        return shown, {camera: image.size for camera, image in images.items()}

    def _paths(self, frame: Frame) -> dict[str, str]:
        return {camera: frame.paths[camera] for camera in self.cameras if camera in frame.paths}


def _question_file(root: Path, questions: str | Path | None) -> Path:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; set dataset.root to the folder of DriveLM's question files")
    names = QUESTION_FILES if questions is None else (questions,)
    if found := next((root / name for name in names if (root / name).is_file()), None):
        return found
    looked_for = ", ".join(map(str, names))
    raise InputError(f"{root}: no question file, looked for {looked_for}; set dataset.questions to yours")


def _read(file: Path) -> list[Question]:
    content = read_json(file)
    if not isinstance(content, dict | list):
        raise InputError(f"{file}: expected DriveLM's scenes or a list of conversations, found {kind_of(content)}")
    questions = list(_by_scene(content, file) if isinstance(content, dict) else _conversations(content, file))
    if not questions:
        raise InputError(f"{file}: holds no question")
    if empty := [question.id for question in questions if not question.text.strip()]:
        raise InputError(f"{file}: question {shortened(empty[0])} is empty; fill it in or remove it")
    check_unique((question.id for question in questions), file, "question id")
    return questions


def _by_scene(scenes: dict[str, Any], file: Path) -> Iterator[Question]:
    """Reads the nested layout; questions of a frame share it."""
    frames: dict[int, Frame] = {}
    for asked in read_scenes(scenes, str(file)):
        if (key := id(asked.entry)) not in frames:
            frames[key] = _frame(asked.scene, asked.frame, asked.entry, asked.where)
        answer = None if asked.answer is None else intern(asked.answer)
        yield Question(asked.id, frames[key], intern(asked.text), answer, asked.tags, asked.kind)


def _frame(scene: str, token: str, entry: Any, where: str) -> Frame:
    """Reads a key frame; missing images become its `fault`, which stops only its own questions."""
    try:
        paths = field(entry, "image_paths", dict, where)
        if not paths:
            raise InputError(f"{where}: field 'image_paths' names no camera")
        named = {camera: field(paths, camera, str, f"{where}, image_paths") for camera in paths}
    except InputError as error:
        return Frame(scene, token, {}, fault=str(error))
    shown = {camera: _below_nuscenes(path, where) for camera, path in named.items()}
    return Frame(scene, token, shown, _objects(entry, where))


def _conversations(entries: list[Any], file: Path) -> Iterator[Question]:
    """Reads the flat layout, where an image's folder names its camera, and a question's id its scene and frame."""
    frames: dict[tuple[str, ...], Frame] = {}
    for number, entry in enumerate(entries):
        where = f"{file}: entry {number}"
        name = field(entry, "id", str, where)
        turns = field(entry, "conversations", list, where)
        if not 1 <= len(turns) <= 2:
            raise InputError(f"{where}: {len(turns)} turns in 'conversations'; expected a question and its answer")
        text = re.sub(rf"^({IMAGE_MARKER}\n?)+", "", field(turns[0], "value", str, f"{where}, turn 0"))
        answers = [field(turn, "value", str, f"{where}, turn 1", optional=True) for turn in turns[1:]]
        scene, token = name.rsplit("_", 2)[:2] if name.count("_") >= 2 else ("", "")
        paths = [_below_nuscenes(str(path), where) for path in field(entry, "image", list, where)]
        key = (scene, token, *paths)
        if key not in frames:
            shown = {Path(path).parent.name: path for path in paths}
            if not shown or "" in shown or len(shown) < len(paths):
                raise InputError(f"{where}: 'image' should list one image a camera, each in its camera's folder")
            frames[key] = Frame(scene, token, shown)
        yield Question(name, frames[key], text, "".join(answers) or None, ())


def _objects(entry: dict[str, Any], where: str) -> tuple[ObjectBox, ...]:
    """Reads the boxes of `key_object_infos`, whose keys have the form `<c1,CAM_BACK,1088.3,497.5>`."""
    boxes = []
    for name, info in field(entry, "key_object_infos", dict, where, optional=True).items():
        at = f"{where}, object {shortened(name)}"
        corners = field(info, "2d_bbox", list, at)
        camera = name.split(",")[1:2]
        if len(corners) != 4 or not all(isinstance(corner, int | float) for corner in corners) or not camera:
            raise InputError(f"{at}: expected a name <id,CAMERA,x,y> and four numbers in '2d_bbox'")
        words = (field(info, key, str, at, optional=True) for key in ("Category", "Visual_description"))
        x0, y0, x1, y1 = map(float, corners)
        boxes.append(ObjectBox(camera[0], (x0, y0, x1, y1), ": ".join(word.rstrip(".") for word in words if word)))
    return tuple(boxes)


def _below_nuscenes(path: str, where: str) -> str:
    return inside(path.rpartition("nuscenes/")[2], where)
