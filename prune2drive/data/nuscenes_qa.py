"""Reads NuScenes-QA (Qian et al., arXiv 2305.14836): questions about nuScenes' key frames with closed answers.

A file is `{"questions": [{"question", "answer", "sample_token", "num_hop", "template_type"}, ...]}`. The images and the
scene of a sample token are in nuScenes' tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

from prune2drive.data.dataset import check_answered, choose_cameras, fingerprint, multi_view_prompt
from prune2drive.data.frame_photos import FramePhotos
from prune2drive.data.nuscenes import NuScenesTables
from prune2drive.data.subset import Subset
from prune2drive.errors import InputError, shortened
from prune2drive.files import field, kind_of, read_json
from prune2drive.sample import Prediction, Sample

QUESTIONS = "NuScenes_val_questions.json"
INSTRUCTION = "Answer in lower case with one word or phrase, or with a number in digits."


class Question(NamedTuple):
    """A question of the file.

    Args:
        id: the frame's token, and the question's number among those about the frame.
        token: the frame's token in nuScenes.
        kind: the template's type and the number of hops, `exist_0`, as the official evaluator calls it.
    """

    id: str
    token: str
    text: str
    answer: str | None
    kind: str


class NuScenesQA:
    """A NuScenes-QA question file and nuScenes' images and boxes; a `prune2drive.data.dataset.Dataset`.

    Args:
        root: folder of the question file.
        nuscenes: folder of nuScenes' tables.
        questions: question file, relative to `root`.
        images: folder that holds nuScenes' `samples/`; by default `nuscenes`.
        version: version of nuScenes' tables.
        cameras: cameras to show, in order; by default all.
        instruction: what the prompt says behind the question; the benchmark has no words for it.
        **subset: options of `Subset`, which chooses the questions.

    Raises:
        InputError: a file is missing or not as the benchmark writes it, or the tables lack a frame.
    """

    def __init__(
        self,
        root: str | Path,
        nuscenes: str | Path,
        questions: str | Path = QUESTIONS,
        images: str | Path | None = None,
        version: str = "v1.0-trainval",
        cameras: Sequence[str] | None = None,
        instruction: str = INSTRUCTION,
        **subset: Any,
    ) -> None:
        part = Subset.of(subset)
        self.file, self.instruction = Path(root).expanduser() / questions, instruction
        everything = _read(self.file)
        tables = NuScenesTables(nuscenes, version)
        self._scenes = {question.token: "" for question in everything}
        for token in self._scenes:
            self._scenes[token] = self._of_frame(tables.scene, token)
        frames = [question.token for question in everything]
        chosen = part.choose([self._scenes[token] for token in frames], self.file, frames)
        self._questions = [everything[place] for place in chosen]
        self.ids = [question.id for question in self._questions]
        asked = dict.fromkeys(question.token for question in self._questions)
        paths = {token: self._of_frame(tables.paths, token) for token in asked}
        known = tuple(dict.fromkeys(camera for shown in paths.values() for camera in shown))
        self.cameras = choose_cameras(cameras, known, str(tables.folder))
        self._paths = {
            token: {name: shown[name] for name in self.cameras if name in shown} for token, shown in paths.items()
        }
        if blind := [token for token, shown in self._paths.items() if not shown]:
            where = f"{self.file}: frame {shortened(blind[0])}"
            raise InputError(f"{where}: no image of {', '.join(self.cameras)}; add other cameras to dataset.cameras")
        self._photos = FramePhotos(Path(images or nuscenes).expanduser(), tables)

    @cached_property
    def fingerprint(self) -> str:
        rows = ((each.id, each.text, *self._paths[each.token].values(), self.instruction) for each in self._questions)
        return fingerprint(rows)

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, index: int) -> Sample:
        question = self._questions[index]
        images = self._photos.images(self._paths[question.token])
        objects, sizes = self._photos.annotated(question.token, images)
        asked = f"{question.text}\n{self.instruction}" if self.instruction else question.text
        return Sample(
            id=question.id,
            images=images,
            question=question.text,
            prompt=multi_view_prompt(tuple(images), f" {asked}"),
            reference=question.answer,
            scene=self._scenes[question.token],
            frame=question.token,
            kind=question.kind,
            objects=objects,
            image_sizes=sizes,
        )

    def question(self, index: int) -> str:
        return self._questions[index].text

    def row(self, index: int) -> Prediction:
        id, token, text, answer, kind = self._questions[index]
        return Prediction(id, text, reference=answer, scene=self._scenes[token], frame=token, kind=kind)

    def frame(self, index: int) -> str:
        return self._questions[index].token

    def check(self) -> None:
        self._photos.check(self._paths.values())

    def _of_frame(self, look_up: Any, token: str) -> Any:
        """Looks up a frame in the tables; an error names the question file too."""
        try:
            return look_up(token)
        except InputError as error:
            raise InputError(f"{self.file}: {error}") from None


def _read(file: Path) -> list[Question]:
    content = read_json(file, "set dataset.root and dataset.questions to the benchmark's")
    numbers: Counter[str] = Counter()
    questions = []
    for place, entry in enumerate(field(content, "questions", list, str(file))):
        where = f"{file}: question {place}"
        token = intern(_filled(entry, "sample_token", where))
        kind = intern(f"{_filled(entry, 'template_type', where)}_{_hops(entry, where)}")
        text = intern(_filled(entry, "question", where))
        questions.append(Question(f"{token}_{numbers[token]}", token, text, _answer(entry, where), kind))
        numbers[token] += 1
    if not questions:
        raise InputError(f"{file}: holds no question")
    check_answered({question.id: question.answer for question in questions}, file)
    return questions


def _filled(entry: Any, name: str, where: str) -> str:
    text = field(entry, name, str, where).strip()
    if not text:
        raise InputError(f"{where}: field '{name}' is empty; fill it in or remove the question")
    return text


def _hops(entry: dict[str, Any], where: str) -> int:
    hops = entry.get("num_hop")
    if type(hops) is not int or hops < 0:  # JSON's true is an int to Python
        raise InputError(f"{where}: field 'num_hop' should be a number of hops from 0, found {shortened(hops)}")
    return hops


def _answer(entry: dict[str, Any], where: str) -> str | None:
    """Returns the answer as text: the official evaluator takes numbers too."""
    answer = entry.get("answer")
    if answer is not None and (isinstance(answer, bool) or not isinstance(answer, str | int)):
        raise InputError(f"{where}: field 'answer' should be a string or a whole number, found {kind_of(answer)}")
    return intern(str(answer)) if answer not in (None, "") else None
