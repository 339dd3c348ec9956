"""What is asked about a MiniDrive scene, in DriveLM's words.

One function a kind of question: it draws from the scene's dice and returns None where the scene has
nothing to ask about. `KINDS_ASKED` lists them in the order in which DriveLM numbers a frame's questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prune2drive.cameras import CAMERAS, spoken_name
from prune2drive.minidrive.scene import Dice, Scene, Thing
from prune2drive.minidrive.vocabulary import COLOURS, NUMBERS, PAINTED, PLURALS, STATUSES, VEHICLES

CHOOSE = "Please select the correct answer from the following options:"
LETTERS = "ABCD"
_BENDS = {0: "going straight", -1: "steering to the left", 1: "steering to the right"}
_MOVES = {  # where the ego vehicle heads, the camera that looks there, how often it is asked
    "going ahead": ("CAM_FRONT", 4.0),
    "turning left": ("CAM_FRONT_LEFT", 2.0),
    "turning right": ("CAM_FRONT_RIGHT", 2.0),
    "backing up": ("CAM_BACK", 1.0),
}


@dataclass(frozen=True)
class Question:
    """A question with its answer.

    Args:
        stage: perception, prediction, planning or behavior.
        tags: DriveLM's scoring tags (0 accuracy, 1 judge, 2 language, 3 match).
        asked: what its words say of an object: any of a Thing's kind, colour, camera, number and cell.
        subjects: the objects that decide the answer.
    """

    kind: str
    stage: str
    text: str
    answer: str
    tags: tuple[int, ...]
    asked: dict[str, Any] = field(default_factory=dict)
    subjects: tuple[Thing, ...] = ()


Asked = tuple[str, str, dict[str, Any], tuple[Thing, ...]]  # question, answer, asked, subjects
Writer = Callable[[Scene, Dice], Asked | None]


def ask(scene: Scene, kind: str, dice: Dice) -> Question:
    """A question of a kind, or whether something exists where the scene leaves nothing of that kind to ask."""
    stage, tag, write = KINDS_ASKED[kind]
    if written := write(scene, dice):
        text, answer, asked, subjects = written
        return Question(kind, stage, text, answer, (tag,), asked, subjects)
    return ask(scene, "exist", dice)


def frame_questions(scene: Scene) -> list[Question]:
    """The questions of a scene's frame: one of each kind, the important objects first."""
    dice = Dice(*scene.key, len(CAMERAS) + 1)
    return [ask(scene, kind, dice) for kind in KINDS_ASKED]


def _pointed(thing: Thing) -> dict[str, Any]:
    """What a c-tag says."""
    return {"number": thing.number, "camera": thing.camera, "cell": thing.cell}


def _choices(options: tuple[str, ...]) -> str:
    return " ".join(f"{letter}. {option}." for letter, option in zip(LETTERS, options, strict=False))


def _important(scene: Scene, dice: Dice) -> Asked | None:
    del dice
    lead = scene.by_camera[CAMERAS[0]][0]
    asked = {"number": lead.number, "camera": lead.camera}
    text, answer = "What are the important objects in the current scene?", f"There is a {lead.name} at {lead.tag}."
    return text, answer, asked, (lead,)


def _status(scene: Scene, dice: Dice) -> Asked | None:
    vehicles = [thing for thing in scene.things if thing.kind in VEHICLES]
    if not vehicles:
        return None
    thing = dice.pick(vehicles)
    text = f"What is the moving status of object {thing.tag}? {CHOOSE} {_choices(STATUSES)}"
    return text, LETTERS[STATUSES.index(str(thing.status))], _pointed(thing), (thing,)


def _description(scene: Scene, dice: Dice) -> Asked | None:
    things = [thing for things in scene.by_camera.values() for thing in things]
    weights = [1.0 if thing.colour else 0.4 for thing in things]
    thing = dice.pick(things, weights)
    return f"What is the visual description of {thing.tag}?", f"{thing.name.capitalize()}.", _pointed(thing), (thing,)


def _exist(scene: Scene, dice: Dice) -> Asked | None:
    """Half of the answers are no, and most of those are one attribute off."""
    painted = [thing for thing in scene.things if thing.colour]
    present = {(thing.camera, thing.kind, thing.colour) for thing in painted}
    asked = (dice.pick(CAMERAS), dice.pick(PAINTED), dice.pick(COLOURS))
    wanted = bool(painted) and dice.chance(0.5)
    while (asked in present) != wanted:
        thing = dice.pick(painted) if painted else None
        camera, kind, colour = dice.pick(CAMERAS), dice.pick(PAINTED), dice.pick(COLOURS)
        if thing and wanted:
            asked = (thing.camera, thing.kind, str(thing.colour))
        elif thing and dice.chance(0.85):
            same = dice.integer(0, 2)
            asked = (
                camera if same == 0 else thing.camera,
                kind if same == 1 else thing.kind,
                colour if same == 2 else str(thing.colour),
            )
        else:
            asked = (camera, kind, colour)
    camera, kind, colour = asked
    text = f"Is there a {colour} {kind} to the {spoken_name(camera)} of the ego vehicle?"
    subjects = tuple(thing for thing in painted if (thing.camera, thing.kind, thing.colour) == asked)
    return text, "Yes." if wanted else "No.", {"camera": camera, "kind": kind, "colour": colour}, subjects


def _count(scene: Scene, dice: Dice) -> Asked | None:
    """Aims at each number equally often, and at zero of something that stands elsewhere."""
    counts = Counter((thing.camera, thing.kind) for things in scene.by_camera.values() for thing in things)
    kinds = {kind for _, kind in counts}
    absent = [(camera, kind) for camera in CAMERAS for kind in PLURALS if kind in kinds and not counts[camera, kind]]
    by_number = [absent] + [[place for place, n in counts.items() if n == number] for number in (1, 2, 3)]
    number = dice.pick([number for number, places in enumerate(by_number) if places])
    camera, kind = dice.pick(by_number[number])
    text = f"How many {PLURALS[kind]} are to the {spoken_name(camera)} of the ego vehicle?"
    counted = tuple(thing for thing in scene.by_camera[camera] if thing.kind == kind)
    return text, f"{NUMBERS[number]}.", {"camera": camera, "kind": kind}, counted


def _camera(scene: Scene, dice: Dice) -> Asked | None:
    """Which camera shows an object whose like no other camera shows; the camera is drawn first."""
    seen: dict[str, set[str]] = {}
    for thing in scene.things:
        seen.setdefault(thing.name, set()).add(thing.camera)
    unique: dict[str, list[Thing]] = {}
    for things in scene.by_camera.values():
        for thing in things:
            if len(seen[thing.name]) == 1:
                unique.setdefault(thing.camera, []).append(thing)
    if not unique:
        return None
    thing = dice.pick(unique[dice.pick(list(unique))])
    asked = {"kind": thing.kind, "colour": thing.colour}
    return f"Which camera shows the {thing.name}?", f"{thing.camera}.", asked, (thing,)


def _light(scene: Scene, dice: Dice) -> Asked | None:
    del dice
    state = scene.light.status if scene.light else "None"
    subjects = (scene.light,) if scene.light else ()
    return "What is the state of the traffic light?", f"{state}.", {"kind": "light"}, subjects


def _notice(scene: Scene, dice: Dice) -> Asked | None:
    moves = [move for move, (camera, _) in _MOVES.items() if scene.by_camera[camera]]
    move = dice.pick(moves, [_MOVES[move][1] for move in moves])
    lead = scene.by_camera[_MOVES[move][0]][0]
    text = f"What object should the ego vehicle notice first when {move}?"
    return text, f"Firstly notice that {lead.tag}.", {"number": lead.number, "camera": lead.camera}, (lead,)


def _action(scene: Scene, dice: Dice) -> Asked | None:
    """Stop at red; slow down at yellow or for a pedestrian ahead; else keep going."""
    del dice
    state = scene.light.status if scene.light else None
    walking = [thing for thing in scene.by_camera[CAMERAS[0]] if thing.kind == "pedestrian"]
    action = "Stop" if state == "Red" else "Slow down" if state == "Yellow" or walking else "Keep going"
    decided = (*([scene.light] if scene.light else []), *walking)
    return "What is the most possible action of the ego vehicle?", f"{action}.", {}, decided


def _behavior(scene: Scene, dice: Dice) -> Asked | None:
    del dice
    options = _choices(tuple(f"The ego vehicle is {bend}" for bend in _BENDS.values()))
    return (
        f"Predict the behavior of the ego vehicle. {CHOOSE} {options}",
        LETTERS[list(_BENDS).index(scene.bend)],
        {},
        (),
    )


KINDS_ASKED: dict[str, tuple[str, int, Writer]] = {
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
}
