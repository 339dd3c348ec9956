"""Reads NuScenes-QA (Qian et al., arXiv 2305.14836): questions about nuScenes' key frames with closed answers.

A file is `{"questions": [{"question", "answer", "sample_token", "num_hop", "template_type"}, ...]}`. The images and the
scene of a sample token are in nuScenes' tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from sys import intern
from typing import Any

from prune2drive.data.dataset import check_answered
from prune2drive.data.frame_photos import FramePhotos
from prune2drive.data.frame_questions import FrameQuestions, Question
from prune2drive.data.nuscenes import NuScenesTables
from prune2drive.data.subset import Subset
from prune2drive.errors import InputError, shortened
from prune2drive.files import field, kind_of, read_json

QUESTIONS = "NuScenes_val_questions.json"
INSTRUCTION = "Answer in lower case with one word or phrase, or with a number in digits."


class NuScenesQA(FrameQuestions):
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
        part, file = Subset.of(subset), Path(root).expanduser() / questions
        read = _read(file)
        tables = NuScenesTables(nuscenes, version)
        everything = _with_scenes(read, tables, file)
        frames = [question.frame for question in everything]
        places = part.choose([question.scene for question in everything], file, frames)
        chosen = [everything[place] for place in places]
        super().__init__(
            file,
            chosen,
            {token: tables.paths(token) for token in dict.fromkeys(question.frame for question in chosen)},
            FramePhotos(Path(images or nuscenes).expanduser(), tables),
            cameras,
            instruction,
        )


def _read(file: Path) -> list[Question]:
    content = read_json(file, "set dataset.root and dataset.questions to the benchmark's")
    numbers: Counter[str] = Counter()
    questions = []
    for place, entry in enumerate(field(content, "questions", list, str(file))):
        where = f"{file}: question {place}"
        token = intern(_filled(entry, "sample_token", where))
        kind = intern(f"{_filled(entry, 'template_type', where)}_{_hops(entry, where)}")
        text = intern(_filled(entry, "question", where))
        questions.append(Question(f"{token}_{numbers[token]}", "", token, text, _answer(entry, where), kind))
        numbers[token] += 1
    if not questions:
        raise InputError(f"{file}: holds no question")
    check_answered({question.id: question.answer for question in questions}, file)
    return questions


def _with_scenes(questions: list[Question], tables: NuScenesTables, file: Path) -> list[Question]:
    """Fills in the scenes from the tables, which must have every frame and its photos."""
    scenes: dict[str, str] = {}
    for token in dict.fromkeys(question.frame for question in questions):
        try:
            scenes[token] = tables.scene(token)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
    return [question._replace(scene=scenes[question.frame]) for question in questions]


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
