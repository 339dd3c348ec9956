"""Reads GoldenViewVQA (Wang et al., arXiv 2606.09644): which of six views shows the evidence, and what the answer is.

A file has one JSON object a line: `question_id`, `question`, `question_group`, `options` by letter, `views` (camera ->
photo below nuScenes' folder), `scene_name`, `sample_token` and, where it is labelled, `golden_view` and
`gold_answer_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from prune2drive.cameras import CAMERAS
from prune2drive.data.dataset import check_answered, check_unique, choose_cameras, fingerprint, multi_view_prompt
from prune2drive.data.frame_photos import FramePhotos
from prune2drive.data.images import inside
from prune2drive.data.nuscenes import NuScenesTables
from prune2drive.data.subset import Subset
from prune2drive.errors import InputError, shortened
from prune2drive.files import field, kind_of, read_json
from prune2drive.sample import Prediction, Sample

QUESTIONS = "data/eval.jsonl"
NO_VIEW = "NONE_OF_THE_ABOVE"  # the label of questions whose evidence is in no view
INSTRUCTION = (
    f"Which camera shows the evidence, {', '.join(CAMERAS)} or {NO_VIEW}, and which option is right? "
    "Reply with the camera's name and the option's letter alone, such as: CAM_BACK B"
)


class Question(NamedTuple):
    """A question of the file.

    Args:
        text: the question and its options, one a line.
        answer: the golden view and the right option, such as `CAM_FRONT A`; None where the file has no labels.
        kind: the benchmark's question group.
        views: camera -> photo, relative to nuScenes' folder.
    """

    id: str
    text: str
    answer: str | None
    kind: str
    scene: str
    frame: str
    views: dict[str, str]


class GoldenViewVQA:
    """A GoldenViewVQA question file and nuScenes' images; a `prune2drive.data.dataset.Dataset`.

    Args:
        root: folder of the benchmark.
        questions: question file, relative to `root`.
        images: folder that holds nuScenes' `samples/`; by default `nuscenes`, or else `root/nuscenes`.
        nuscenes: folder of nuScenes' tables, for the annotated objects.
        version: version of nuScenes' tables.
        cameras: cameras to show, in order; by default all, in the file's order.
        instruction: what the prompt says behind the question; the benchmark leaves the words to others.
        **subset: options of `Subset`, which chooses the questions.

    Raises:
        InputError: a file is missing, or not as the benchmark writes it.
    """

    def __init__(
        self,
        root: str | Path,
        questions: str | Path = QUESTIONS,
        images: str | Path | None = None,
        nuscenes: str | Path | None = None,
        version: str = "v1.0-trainval",
        cameras: Sequence[str] | None = None,
        instruction: str = INSTRUCTION,
        **subset: Any,
    ) -> None:
        part = Subset.of(subset)
        self.file, self.instruction = Path(root).expanduser() / questions, instruction
        everything = _read(self.file)
        places = part.choose([each.scene for each in everything], self.file, [each.frame for each in everything])
        self._questions = [everything[place] for place in places]
        self.ids = [question.id for question in self._questions]
        known = tuple(dict.fromkeys(camera for question in self._questions for camera in question.views))
        self.cameras = choose_cameras(cameras, known, str(self.file))
        if blind := [question.id for question in self._questions if not self._shown(question)]:
            where = f"{self.file}: question {shortened(blind[0])}"
            raise InputError(f"{where}: no image of {', '.join(self.cameras)}; add other cameras to dataset.cameras")
        tables = NuScenesTables(nuscenes, version) if nuscenes else None
        self._photos = FramePhotos(Path(images or nuscenes or Path(root) / "nuscenes").expanduser(), tables)

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint((q.id, q.text, *self._shown(q).values(), self.instruction) for q in self._questions)

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Sample:
        question = self._questions[index]
        images = self._photos.images(self._shown(question))
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
        id, text, answer, kind, scene, frame, _ = self._questions[index]
        return Prediction(id, text, reference=answer, scene=scene, frame=frame, kind=kind)

    def frame(self, index: int) -> str:
        return self._questions[index].frame

    def check(self) -> None:
        frames = {question.frame: self._shown(question) for question in self._questions}
        self._photos.check(frames.values())
        if self._photos.tables:
            for token in frames:
                self._photos.tables.scene(token)

    def _shown(self, question: Question) -> dict[str, str]:
        return {camera: question.views[camera] for camera in self.cameras if camera in question.views}


def _read(file: Path) -> list[Question]:
    content = read_json(file, "set dataset.root and dataset.questions to the benchmark's")
    if not isinstance(content, list):
        raise InputError(f"{file}: expected one question a line (.jsonl) or a list of them, found {kind_of(content)}")
    questions = [_question(entry, f"{file}: question {place}") for place, entry in enumerate(content)]
    if not questions:
        raise InputError(f"{file}: holds no question")
    check_unique((question.id for question in questions), file, "question_id")
    check_answered({question.id: question.answer for question in questions}, file)
    views: dict[str, dict[str, str]] = {}
    for question in questions:
        if views.setdefault(question.frame, question.views) != question.views:
            where = f"{file}: question {shortened(question.id)}"
            raise InputError(
                f"{where}: 'views' differ from those of another question with its sample_token; correct one"
            )
    return questions


def _question(entry: Any, where: str) -> Question:
    names = ("question_id", "question", "question_group", "scene_name", "sample_token")
    id, text, kind, scene, frame = (field(entry, name, str, where).strip() for name in names)
    if not (id and text and frame):
        raise InputError(
            f"{where}: 'question_id', 'question' or 'sample_token' is empty; fill it in or remove the line"
        )
    options, views = (_texts(entry, name, where) for name in ("options", "views"))
    lines = [text, *(f"{letter}. {option}" for letter, option in options.items())]
    shown = {camera: inside(path.rpartition("nuscenes/")[2], where) for camera, path in views.items()}
    return Question(id, "\n".join(lines), _label(entry, options, shown, where), kind, scene, frame, shown)


def _texts(entry: dict[str, Any], name: str, where: str) -> dict[str, str]:
    texts = field(entry, name, dict, where)
    if not texts:
        raise InputError(f"{where}: field '{name}' is empty; fill it in or remove the line")
    return {key: field(texts, key, str, f"{where}, {name}") for key in texts}


def _label(entry: dict[str, Any], options: Mapping[str, str], views: Mapping[str, str], where: str) -> str | None:
    """Returns the golden view and the letter of the right option; None where a line has neither."""
    if entry.get("golden_view") is None and entry.get("gold_answer_id") is None:
        return None
    view, letter = (field(entry, name, str, where).strip() for name in ("golden_view", "gold_answer_id"))
    labels = (*(camera for camera in CAMERAS if camera in views), NO_VIEW)
    for name, value, known in (("golden_view", view, labels), ("gold_answer_id", letter, tuple(options))):
        if value not in known:
            raise InputError(f"{where}: field '{name}' is '{shortened(value)}'; it should be one of {', '.join(known)}")
    return f"{view} {letter}"
