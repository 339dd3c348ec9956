"""Writes questions about MiniDrive's scenes, in DriveLM's words.

The function of a question kind draws a question, or returns None if the scene has no object to ask about.
`QUESTION_KINDS` lists the kinds in the order in which DriveLM numbers a frame's questions.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prune2drive.cameras import CAMERAS, spoken_name
from prune2drive.minidrive.scene import Scene, SceneObject
from prune2drive.minidrive.scene_random import SceneRandom
from prune2drive.minidrive.vocabulary import COLOURS, NUMBERS, PAINTED, PLURALS, STATUSES, VEHICLES

CHOOSE = "Please select the correct answer from the following options:"
LETTERS = "ABCD"
_AHEAD = ("light", "action", "behavior")  # kinds that look ahead, whatever is there
_BENDS = {0: "going straight", -1: "steering to the left", 1: "steering to the right"}
_MOVES = {  # move of the ego vehicle -> the camera that looks there, relative frequency
    "going ahead": ("CAM_FRONT", 4.0),
    "turning left": ("CAM_FRONT_LEFT", 2.0),
    "turning right": ("CAM_FRONT_RIGHT", 2.0),
    "backing up": ("CAM_BACK", 1.0),
}


@dataclass(frozen=True)
class Question:
    """Holds a question and its reference answer.

    Args:
        kind: key of `QUESTION_KINDS`.
        stage: perception, prediction, planning or behavior.
        text: the question.
        reference: the reference answer.
        tags: DriveLM's scoring tags (0 accuracy, 1 judge, 2 language, 3 match).
        asked: attributes that the question names of an object: kind, colour, camera, number, cell.
        subjects: objects that decide the answer.
    """

    kind: str
    stage: str
    text: str
    reference: str
    tags: tuple[int, ...]
    asked: dict[str, Any] = field(default_factory=dict)
    subjects: tuple[SceneObject, ...] = ()

    @property
    def cameras(self) -> set[str]:
        """The cameras without which the answer is not known."""
        named = {camera for camera in CAMERAS if re.search(rf"\b{camera}\b", self.text)}
        ahead = {CAMERAS[0]} if self.kind in _AHEAD else set()
        asked = {self.asked["camera"]} if "camera" in self.asked else set()
        return named | ahead | asked | {obj.camera for obj in self.subjects}


Draft = tuple[str, str, dict[str, Any], tuple[SceneObject, ...]]  # text, reference, asked and subjects of a question
Writer = Callable[[Scene, SceneRandom], Draft | None]


def ask(scene: Scene, kind: str, rng: SceneRandom) -> Question:
    """Returns a question of a kind, or of the kind `exist` if the scene has no object to ask about.

    Args:
        scene: the scene that the question is about.
        kind: key of `QUESTION_KINDS`.
        rng: source of all choices.
    """
    stage, tag, write = QUESTION_KINDS[kind]
    if draft := write(scene, rng):
        text, reference, asked, subjects = draft
        return Question(kind, stage, text, reference, (tag,), asked, subjects)
    return ask(scene, "exist", rng)


def frame_questions(scene: Scene, version: int) -> list[Question]:
    """Returns the questions of a scene's frame, one of each kind in the order of `QUESTION_KINDS`.

    Args:
        scene: the scene.
        version: key of `VERSIONS`.
    """
    rng = SceneRandom(*scene.key, len(CAMERAS) + 1)
    return [ask(scene, kind, rng) for kind in VERSIONS[version]]


def _tagged(obj: SceneObject) -> dict[str, Any]:
    """Returns the attributes that an object's identifier names."""
    return {"number": obj.number, "camera": obj.camera, "cell": obj.cell}


def _choices(options: tuple[str, ...]) -> str:
    return " ".join(f"{letter}. {option}." for letter, option in zip(LETTERS, options, strict=False))


def _important(scene: Scene, rng: SceneRandom) -> Draft | None:
    lead = scene.by_camera[CAMERAS[0]][0]
    asked = {"number": lead.number, "camera": lead.camera}
    text, answer = "What are the important objects in the current scene?", f"There is a {lead.name} at {lead.tag}."
    return text, answer, asked, (lead,)


def _status(scene: Scene, rng: SceneRandom) -> Draft | None:
    vehicles = [obj for obj in scene.objects if obj.kind in VEHICLES]
    if not vehicles:
        return None
    obj = rng.pick(vehicles)
    text = f"What is the moving status of object {obj.tag}? {CHOOSE} {_choices(STATUSES)}"
    return text, LETTERS[STATUSES.index(str(obj.status))], _tagged(obj), (obj,)


def _description(scene: Scene, rng: SceneRandom) -> Draft | None:
    objects = [obj for objects in scene.by_camera.values() for obj in objects]
    weights = [1.0 if obj.colour else 0.4 for obj in objects]
    obj = rng.pick(objects, weights)
    return f"What is the visual description of {obj.tag}?", f"{obj.name.capitalize()}.", _tagged(obj), (obj,)


def _exist(scene: Scene, rng: SceneRandom) -> Draft | None:
    """Asks whether an object exists; half of the answers are no, mostly for one wrong attribute."""
    painted = [obj for obj in scene.objects if obj.colour]
    present = {(obj.camera, obj.kind, obj.colour) for obj in painted}
    asked = (rng.pick(CAMERAS), rng.pick(PAINTED), rng.pick(COLOURS))
    wanted = bool(painted) and rng.chance(0.5)
    while (asked in present) != wanted:
        obj = rng.pick(painted) if painted else None
        camera, kind, colour = rng.pick(CAMERAS), rng.pick(PAINTED), rng.pick(COLOURS)
        if obj and wanted:
            asked = (obj.camera, obj.kind, str(obj.colour))
        elif obj and rng.chance(0.85):
            same = rng.integer(0, 2)
            asked = (
                camera if same == 0 else obj.camera,
                kind if same == 1 else obj.kind,
                colour if same == 2 else str(obj.colour),
            )
        else:
            asked = (camera, kind, colour)
    camera, kind, colour = asked
    text = f"Is there a {colour} {kind} to the {spoken_name(camera)} of the ego vehicle?"
    subjects = tuple(obj for obj in painted if (obj.camera, obj.kind, obj.colour) == asked)
    return text, "Yes." if wanted else "No.", {"camera": camera, "kind": kind, "colour": colour}, subjects


def _count(scene: Scene, rng: SceneRandom) -> Draft | None:
    """Asks how many objects of a kind a camera shows: 0 to 3 equally often, 0 only for kinds in other cameras."""
    counts = Counter((obj.camera, obj.kind) for objects in scene.by_camera.values() for obj in objects)
    kinds = {kind for _, kind in counts}
    absent = [(camera, kind) for camera in CAMERAS for kind in PLURALS if kind in kinds and not counts[camera, kind]]
    by_number = [absent] + [[place for place, n in counts.items() if n == number] for number in (1, 2, 3)]
    number = rng.pick([number for number, places in enumerate(by_number) if places])
    camera, kind = rng.pick(by_number[number])
    text = f"How many {PLURALS[kind]} are to the {spoken_name(camera)} of the ego vehicle?"
    counted = tuple(obj for obj in scene.by_camera[camera] if obj.kind == kind)
    return text, f"{NUMBERS[number]}.", {"camera": camera, "kind": kind}, counted


def _camera(scene: Scene, rng: SceneRandom) -> Draft | None:
    """Asks which camera shows an object whose name is unique to one camera; draws the camera before the object."""
    seen: dict[str, set[str]] = {}
    for obj in scene.objects:
        seen.setdefault(obj.name, set()).add(obj.camera)
    unique: dict[str, list[SceneObject]] = {}
    for objects in scene.by_camera.values():
        for obj in objects:
            if len(seen[obj.name]) == 1:
                unique.setdefault(obj.camera, []).append(obj)
    if not unique:
        return None
    obj = rng.pick(unique[rng.pick(list(unique))])
    asked = {"kind": obj.kind, "colour": obj.colour}
    return f"Which camera shows the {obj.name}?", f"{obj.camera}.", asked, (obj,)


def _light(scene: Scene, rng: SceneRandom) -> Draft | None:
    state = scene.light.status if scene.light else "None"
    subjects = (scene.light,) if scene.light else ()
    return "What is the state of the traffic light?", f"{state}.", {"kind": "light"}, subjects


def _notice(scene: Scene, rng: SceneRandom) -> Draft | None:
    moves = [move for move, (camera, _) in _MOVES.items() if scene.by_camera[camera]]
    move = rng.pick(moves, [_MOVES[move][1] for move in moves])
    lead = scene.by_camera[_MOVES[move][0]][0]
    text = f"What object should the ego vehicle notice first when {move}?"
    return text, f"Firstly notice that {lead.tag}.", {"number": lead.number, "camera": lead.camera}, (lead,)


def _action(scene: Scene, rng: SceneRandom) -> Draft | None:
    """Asks for the action: stop at red, slow down at yellow or for a pedestrian ahead, else keep going."""
    state = scene.light.status if scene.light else None
    walking = [obj for obj in scene.by_camera[CAMERAS[0]] if obj.kind == "pedestrian"]
    action = "Stop" if state == "Red" else "Slow down" if state == "Yellow" or walking else "Keep going"
    decided = (*([scene.light] if scene.light else []), *walking)
    return "What is the most possible action of the ego vehicle?", f"{action}.", {}, decided


def _behavior(scene: Scene, rng: SceneRandom) -> Draft | None:
    options = _choices(tuple(f"The ego vehicle is {bend}" for bend in _BENDS.values()))
    return (
        f"Predict the behavior of the ego vehicle. {CHOOSE} {options}",
        LETTERS[list(_BENDS).index(scene.bend)],
        {},
        (),
    )


def _compare(scene: Scene, rng: SceneRandom) -> Draft | None:
    """Asks which of two cameras shows more objects of a kind: the first, the second and neither equally often."""
    counts = {camera: Counter(obj.kind for obj in objects) for camera, objects in scene.by_camera.items()}
    cases = [
        (kind, first, second)
        for kind in PLURALS
        for first in CAMERAS
        for second in CAMERAS
        if first != second and (counts[first][kind] or counts[second][kind])
    ]
    wanted = rng.integer(-1, 1)
    cases = [case for case in cases if _sign(counts[case[1]][case[0]] - counts[case[2]][case[0]]) == wanted] or cases
    if not cases:
        return None
    kind, first, second = rng.pick(cases)
    sign = _sign(counts[first][kind] - counts[second][kind])
    answer = {1: first, -1: second, 0: "None"}[sign]
    shown = tuple(obj for camera in (first, second) for obj in scene.by_camera[camera] if obj.kind == kind)
    return f"Which camera shows more {PLURALS[kind]}, {first} or {second}?", f"{answer}.", {"kind": kind}, shown


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def _small(scene: Scene, rng: SceneRandom) -> Draft | None:
    """Asks for the description of the painted object that takes up least of its image."""
    painted = [obj for objects in scene.by_camera.values() for obj in objects if obj.colour]
    if not painted:
        return None
    obj = min(painted, key=lambda obj: (obj.box[2] - obj.box[0]) * (obj.box[3] - obj.box[1]))
    return f"What is the visual description of {obj.tag}?", f"{obj.name.capitalize()}.", _tagged(obj), (obj,)


QUESTION_KINDS: dict[str, tuple[str, int, Writer]] = {
    "important": ("perception", 2, _important),
    "status": ("perception", 0, _status),
    "description": ("perception", 2, _description),
    "exist": ("perception", 0, _exist),
    "count": ("perception", 0, _count),
    "camera": ("perception", 0, _camera),
    "light": ("perception", 0, _light),
    "notice": ("prediction", 3, _notice),
    "action": ("planning", 1, _action),
    "behavior": ("behavior", 0, _behavior),
    "compare": ("perception", 0, _compare),
    "small": ("perception", 2, _small),
}
VERSIONS = {1: tuple(QUESTION_KINDS)[:10], 2: tuple(QUESTION_KINDS)}
"""Version of MiniDrive -> the kinds of its questions. The second adds those that need two cameras or a small object."""
VERSION = 2
"""Version of the questions and of the packaged model that are taken by default."""
