"""Reads STSBench (Fruhwirth-Reisinger et al., arXiv 2506.06218): what the ego vehicle and others do in a clip.

A file is a list of scenarios: `scenario` in words, `negative_scenarios` with commas between them, `sensors` (camera ->
a photo below nuScenes' folder for each time) and, for those who act, `ego`, `agent` and `other_agent`, the latter two
with a box in one camera at each time. It has no options: the benchmark draws them whenever it writes prompts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from string import ascii_uppercase
from typing import Any, NamedTuple

from prune2drive.cameras import CAMERAS, camera_of, clip_views, time_of
from prune2drive.data.dataset import choose_cameras
from prune2drive.data.frame_photos import FramePhotos
from prune2drive.data.frame_questions import FrameQuestions, Question
from prune2drive.data.images import inside
from prune2drive.data.subset import Subset
from prune2drive.errors import InputError, check_whole
from prune2drive.files import field, kind_of, read_json
from prune2drive.sample import ObjectBox, Sample

QUESTIONS = "STSnu/STSnu.json"
INSTRUCTION = "Reply with the letter of the right option alone."
SIZE = (1600, 900)  # of nuScenes' photos, in pixels
NEGATIVES = 4  # wrong options of a question, as in the benchmark's prompts
ACTORS = ("agent", "other_agent")
Box = tuple[float, float, float, float]


class Scenario(NamedTuple):
    """A question about a clip.

    Args:
        photos: camera -> photo at each time, the earliest first.
        seen: camera and box at each time of the agents, first those whom the question names first.
    """

    question: Question
    photos: dict[str, list[str]]
    seen: list[list[tuple[str, Box]]]


class STSBench(FrameQuestions):
    """An STSBench scenario file and nuScenes' images; a `prune2drive.data.dataset.Dataset`.

    Args:
        root: folder of the benchmark.
        questions: scenario file, relative to `root`.
        images: folder that holds nuScenes' `samples/`; by default `root/nuscenes`.
        cameras: cameras to show, in order; by default all.
        times: how many of a clip's times to show, spread from the first to the last; by default all.
        options_seed: seed by which wrong options and their order are drawn, separate from the run's seed since all runs
            must ask the same.
        instruction: what the prompt says behind the question.
        **subset: options of `Subset`, which chooses the questions. A scene is a recording of nuScenes: the file does
            not tell apart the scenes that were cut from it.

    Raises:
        InputError: a file is missing, or not as the benchmark writes it.
    """

    def __init__(
        self,
        root: str | Path,
        questions: str | Path = QUESTIONS,
        images: str | Path | None = None,
        cameras: Sequence[str] | None = None,
        times: int | None = None,
        options_seed: int = 0,
        instruction: str = INSTRUCTION,
        **subset: Any,
    ) -> None:
        check_whole("dataset.times", times, null=True)
        check_whole("dataset.options_seed", options_seed, least=0)
        part, file = Subset.of(subset), Path(root).expanduser() / questions
        everything = _read(file, options_seed)
        asked = [each.question for each in everything]
        places = part.choose([each.scene for each in asked], file, [each.frame for each in asked])
        chosen = [everything[place] for place in places]
        known = tuple(dict.fromkeys(camera for each in chosen for camera in each.photos))
        shown = choose_cameras(cameras, known, str(file))
        paths = {each.question.frame: _views(each.photos, shown, times) for each in chosen}
        views = {view for of in paths.values() for view in of}
        super().__init__(
            file,
            [each.question for each in chosen],
            {frame: {view: photo for view, (photo, _) in of.items()} for frame, of in paths.items()},
            FramePhotos(Path(images or Path(root) / "nuscenes").expanduser()),
            sorted(views, key=lambda view: (shown.index(camera_of(view)), time_of(view) or 0)),
            instruction,
        )
        self._objects = [_objects(each, paths[each.question.frame]) for each in chosen]

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return replace(sample, objects=self._objects[index], image_sizes=dict.fromkeys(sample.cameras, SIZE))


def _views(photos: Mapping[str, list[str]], cameras: Sequence[str], times: int | None) -> dict[str, tuple[str, int]]:
    """Returns view -> its photo and time in the file, for the cameras and as many times as are to be shown."""
    count = len(next(iter(photos.values())))
    at: Sequence[int] = range(count)
    if times is not None and times < count:
        at = [place * (count - 1) // max(times - 1, 1) for place in range(times)]
    here = [camera for camera in cameras if camera in photos]
    files = [(photos[camera][time], time) for camera in here for time in at]
    return dict(zip(clip_views(here, len(at)), files, strict=True))


def _objects(scenario: Scenario, views: Mapping[str, tuple[str, int]]) -> tuple[ObjectBox, ...]:
    """Returns the boxes of those whom the question names, in the views that show them."""
    at = {(camera_of(view), time): view for view, (_, time) in views.items()}
    return tuple(
        ObjectBox(at[camera, time], box, label)
        for label, seen in zip(ACTORS, scenario.seen, strict=False)
        for time, (camera, box) in enumerate(seen)
        if (camera, time) in at
    )


def _read(file: Path, seed: int) -> list[Scenario]:
    content = read_json(file, "set dataset.root and dataset.questions to the benchmark's")
    if not isinstance(content, list):
        raise InputError(f"{file}: expected a list of scenarios, found {kind_of(content)}")
    scenarios = [_scenario(entry, place, f"{file}: scenario {place}", seed) for place, entry in enumerate(content)]
    if not scenarios:
        raise InputError(f"{file}: holds no scenario")
    photos_of: dict[str, dict[str, list[str]]] = {}
    for place, (question, photos, _) in enumerate(scenarios):
        if photos_of.setdefault(question.frame, photos) != photos:
            raise InputError(
                f"{file}: scenario {place}: its photos begin like another scenario's and are not the same; correct one"
            )
    return scenarios


def _scenario(entry: Any, place: int, where: str, seed: int) -> Scenario:
    right, negative = (field(entry, name, str, where).strip() for name in ("scenario", "negative_scenarios"))
    wrong = [each.strip() for each in negative.split(",") if each.strip()]
    if not right or not wrong:
        raise InputError(f"{where}: 'scenario' or 'negative_scenarios' is empty; fill it in or remove the scenario")
    photos = _photos(field(entry, "sensors", dict, where), where)
    first = PurePosixPath(next(iter(photos.values()))[0]).stem
    count = len(next(iter(photos.values())))
    seen = [_seen(entry[actor], count, f"{where}, {actor}") for actor in ACTORS if entry.get(actor) is not None]
    is_ego = entry.get("ego") is not None
    if not is_ego and not seen:
        raise InputError(f"{where}: names neither 'ego' nor 'agent'; say who acts")
    group = "_".join(["ego"] * is_ego + ["agent"] * len(seen))
    options, letter = _options(right, wrong, random.Random(f"{seed}/{place}"))
    lines = [_asked(is_ego, seen), *(f"{name}. {_named(text)}" for name, text in options.items())]
    question = Question(
        str(place), first.partition("__")[0], f"{first}+{count}", "\n".join(lines), letter, f"{group}: {right}"
    )
    return Scenario(question, photos, seen)


def _photos(sensors: dict[str, Any], where: str) -> dict[str, list[str]]:
    """Returns camera -> photos, of all cameras equally many."""
    photos: dict[str, list[str]] = {}
    for camera in CAMERAS:
        if camera in sensors:
            paths = field(sensors, camera, list, f"{where}, sensors")
            if not all(isinstance(path, str) for path in paths):
                raise InputError(f"{where}, sensors: field '{camera}' should be a list of image paths")
            photos[camera] = [inside(path, where) for path in paths]
    if len({len(paths) for paths in photos.values()}) != 1 or not all(photos.values()):
        raise InputError(f"{where}: 'sensors' needs cameras of nuScenes with equally many photos, at least one")
    return photos


def _seen(actor: Any, count: int, where: str) -> list[tuple[str, Box]]:
    """Returns the camera that shows an agent, and its box; at the first time alone where others are not told apart."""
    shown = field(actor, "camera", dict, where)
    cameras, boxes = (field(shown, name, list, f"{where}, camera") for name in ("cam", "bb2d"))
    for camera, box in zip(cameras, boxes, strict=False):
        is_box = isinstance(box, list) and len(box) == 4 and all(isinstance(edge, int | float) for edge in box)
        if not is_box or not isinstance(camera, str):
            raise InputError(f"{where}: 'cam' should name a camera and 'bb2d' four numbers for each time")
    if not cameras or len(cameras) != len(boxes):
        raise InputError(f"{where}: 'cam' and 'bb2d' should be as long as each other, and not empty")
    seen = [(camera, (box[0], box[1], box[2], box[3])) for camera, box in zip(cameras, boxes, strict=True)]
    return seen if len(seen) == count else seen[:1]


def _asked(is_ego: bool, seen: Sequence[Sequence[tuple[str, Box]]]) -> str:
    """Returns the question, which names agents as DriveLM does: by the camera and pixel of their first box's centre."""
    tags = []
    for number, ((camera, (x0, y0, x1, y1)), *_) in enumerate(seen, start=1):
        tags.append(f"<c{number},{camera},{(x0 + x1) / 2:.1f},{(y0 + y1) / 2:.1f}>")
    names = ["the ego vehicle"] * is_ego + [f"{tag} of the first image" for tag in tags]
    towards = f" with respect to {names[1]}" if len(names) > 1 else ""
    return f"Which option says best what {names[0]} does{towards}?"


def _named(text: str) -> str:
    """Returns an option with the names that the question has for agents: c1 and c2, as they come."""
    numbers = iter(("c1", "c2"))
    return re.sub(r"\bagent\b", lambda found: next(numbers, found[0]), text, flags=re.IGNORECASE)


def _options(right: str, wrong: Sequence[str], rng: random.Random) -> tuple[dict[str, str], str]:
    """Draws wrong options as the benchmark does, and shuffles them with the right one.

    Of n that are left, the first has the weight n, and the last 1.

    Returns:
        Letter -> option, and the right letter.
    """
    left, drawn = list(wrong), [right]
    while left and len(drawn) <= NEGATIVES:
        (place,) = rng.choices(range(len(left)), weights=range(len(left), 0, -1))
        drawn.append(left.pop(place))
    rng.shuffle(drawn)
    options = dict(zip(ascii_uppercase, drawn, strict=False))
    return options, next(letter for letter, option in options.items() if option == right)
