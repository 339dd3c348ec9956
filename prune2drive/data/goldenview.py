"""Reads GoldenViewVQA (Wang et al., arXiv 2606.09644): which of six views shows the evidence, and what the answer is.

A file has one JSON object a line: `question_id`, `question`, `question_group`, `options` by letter, `views` (camera ->
photo below nuScenes' folder), `scene_name`, `sample_token` and, where it is labelled, `golden_view` and
`gold_answer_id`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from prune2drive.cameras import CAMERAS
from prune2drive.data.dataset import check_answered, check_unique
from prune2drive.data.frame_photos import FramePhotos
from prune2drive.data.frame_questions import FrameQuestions, Question
from prune2drive.data.images import inside
from prune2drive.data.nuscenes import NuScenesTables
from prune2drive.data.subset import Subset
from prune2drive.errors import InputError, shortened
from prune2drive.files import field, kind_of, read_json

QUESTIONS = "data/eval.jsonl"
NO_VIEW = "NONE_OF_THE_ABOVE"  # the label of questions whose evidence is in no view
INSTRUCTION = (
    f"Which camera shows the evidence, {', '.join(CAMERAS)} or {NO_VIEW}, and which option is right? "
    "Reply with the camera's name and the option's letter alone, such as: CAM_BACK B"
)


class Labelled(NamedTuple):
    """A question, its options one a line, answered by the golden view and the right option, such as `CAM_FRONT A`.

    Args:
        views: camera -> photo, relative to nuScenes' folder.
    """

    question: Question
    views: dict[str, str]


class GoldenViewVQA(FrameQuestions):
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
        part, file = Subset.of(subset), Path(root).expanduser() / questions
        everything = _read(file)
        asked = [each.question for each in everything]
        places = part.choose([each.scene for each in asked], file, [each.frame for each in asked])
        tables = NuScenesTables(nuscenes, version) if nuscenes else None
        super().__init__(
            file,
            [asked[place] for place in places],
            {asked[place].frame: everything[place].views for place in places},
            FramePhotos(Path(images or nuscenes or Path(root) / "nuscenes").expanduser(), tables),
            cameras,
            instruction,
        )


def _read(file: Path) -> list[Labelled]:
    content = read_json(file, "set dataset.root and dataset.questions to the benchmark's")
    if not isinstance(content, list):
        raise InputError(f"{file}: expected one question a line (.jsonl) or a list of them, found {kind_of(content)}")
    labelled = [_labelled(entry, f"{file}: question {place}") for place, entry in enumerate(content)]
    if not labelled:
        raise InputError(f"{file}: holds no question")
    check_unique((question.id for question, _ in labelled), file, "question_id")
    check_answered({question.id: question.answer for question, _ in labelled}, file)
    views_of: dict[str, dict[str, str]] = {}
    for question, views in labelled:
        if views_of.setdefault(question.frame, views) != views:
            where = f"{file}: question {shortened(question.id)}"
            raise InputError(
                f"{where}: 'views' differ from those of another question with its sample_token; correct one"
            )
    return labelled


def _labelled(entry: Any, where: str) -> Labelled:
    names = ("question_id", "question", "question_group", "scene_name", "sample_token")
    id, text, kind, scene, frame = (field(entry, name, str, where).strip() for name in names)
    if not (id and text and frame):
        raise InputError(
            f"{where}: 'question_id', 'question' or 'sample_token' is empty; fill it in or remove the line"
        )
    options, views = (_texts(entry, name, where) for name in ("options", "views"))
    lines = [text, *(f"{letter}. {option}" for letter, option in options.items())]
    shown = {camera: inside(path.rpartition("nuscenes/")[2], where) for camera, path in views.items()}
    answer = _label(entry, options, shown, where)
    return Labelled(Question(id, scene, frame, "\n".join(lines), answer, kind), shown)


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
