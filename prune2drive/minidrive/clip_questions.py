"""Writes questions about MiniDrive's clips: what moves, what came, and what was seen before.

As in `questions.py`, the function of a kind draws a question, or returns None if there is nothing to ask about. All
words are those that MiniDrive's tokenizer knows. Few questions can be answered from the current images alone: those
about what is stopped, which never moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from prune2drive.cameras import CAMERAS, spoken_name
from prune2drive.minidrive.clip import Clip, middle
from prune2drive.minidrive.questions import Draft, Question
from prune2drive.minidrive.scene import SceneObject
from prune2drive.minidrive.scene_random import SceneRandom
from prune2drive.minidrive.vocabulary import COLOURS, NUMBERS, PAINTED

_STREAM = len(CAMERAS) + 3  # of the random streams of a scene: that of the clip's events comes before
_SURE = 0.7  # share of questions about what moves, came or left that ask a camera in which something does


def clip_questions(clip: Clip) -> list[Question]:
    """Returns the questions of a clip, one of each kind in the order of `CLIP_KINDS`."""
    rng = SceneRandom(*clip.now.key, _STREAM)
    return [ask_about_clip(clip, kind, rng) for kind in CLIP_KINDS]


def ask_about_clip(clip: Clip, kind: str, rng: SceneRandom) -> Question:
    """Returns a question of a kind, or of the kind `first` if the clip has nothing to ask about.

    Args:
        clip: the clip that the question is about.
        kind: key of `CLIP_KINDS`.
        rng: source of all choices.
    """
    tag, write = CLIP_KINDS[kind]
    if draft := write(clip, rng):
        text, reference, attributes, subjects = draft
        return Question(kind, "perception", text, reference, (tag,), attributes, subjects)
    return ask_about_clip(clip, "first", rng)


def _which(clip: Clip, found: Sequence[SceneObject], what: str, rng: SceneRandom) -> Draft | None:
    """Asks for the one object of a camera that was found, or for none in a camera that shows others."""
    counts = Counter(obj.camera for obj in found)
    single = [obj for obj in found if counts[obj.camera] == 1]
    subjects: tuple[SceneObject, ...] = ()
    empty = [camera for camera, objects in clip.now.by_camera.items() if objects and not counts[camera]]
    if single and (not empty or rng.chance(_SURE)):
        obj = rng.pick(single)
        camera, answer, subjects = obj.camera, f"{obj.name.capitalize()}.", (obj,)
    elif empty:
        camera, answer = rng.pick(empty), "None."
    else:
        return None
    return f"What object to the {spoken_name(camera)} of the ego vehicle {what}?", answer, {"camera": camera}, subjects


def _moving(clip: Clip, rng: SceneRandom) -> Draft | None:
    return _which(clip, [obj for obj, _ in clip.moved], "is moving", rng)


def _gone(clip: Clip, rng: SceneRandom) -> Draft | None:
    return _which(clip, clip.left, "is visible in the first image, but not in the current image", rng)


def _new(clip: Clip, rng: SceneRandom) -> Draft | None:
    return _which(clip, clip.came, "is visible in the current image, but not in the first image", rng)


def _is_moving(clip: Clip, rng: SceneRandom) -> Draft | None:
    """Asks whether an object that is there all the time moves; half of the answers are no, where they can be."""
    movers = [obj for obj, _ in clip.moved]
    still = [obj for obj in clip.now.objects if obj.colour and obj not in (*movers, *clip.came)]
    chosen = movers if movers and (not still or rng.chance(0.5)) else still
    if not chosen:
        return None
    obj = rng.pick(chosen)
    text = f"Is the {obj.name} to the {spoken_name(obj.camera)} of the ego vehicle moving?"
    return text, "Yes." if obj in movers else "No.", _named(obj), (obj,)


def _named(obj: SceneObject) -> dict[str, Any]:
    return {"camera": obj.camera, "kind": obj.kind, "colour": obj.colour}


def _direction(clip: Clip, rng: SceneRandom) -> Draft | None:
    if not clip.moved:
        return None
    obj, past = rng.pick(clip.moved)
    side = "left" if middle(obj) < middle(past) else "right"
    place = f"to the {spoken_name(obj.camera)} of the ego vehicle"
    text = f"Is the {obj.name} {place} moving to the left or to the right?"
    return text, f"To the {side}.", _named(obj), (obj,)


def _first(clip: Clip, rng: SceneRandom) -> Draft:
    """Asks whether something was there at first; half of the answers are no, preferably for what came later."""
    there = [obj for obj in clip.scenes[0].objects if obj.colour]
    named = {(obj.camera, obj.kind, obj.colour) for obj in there}
    wanted = bool(there) and rng.chance(0.5)
    if wanted:
        obj = rng.pick(clip.left if clip.left and rng.chance(0.5) else there)
        camera, kind, colour = obj.camera, obj.kind, obj.colour
    elif clip.came and rng.chance(0.5):
        obj = rng.pick(clip.came)
        camera, kind, colour = obj.camera, obj.kind, obj.colour
    else:
        camera, kind, colour = rng.pick(CAMERAS), rng.pick(PAINTED), rng.pick(COLOURS)
        while (camera, kind, colour) in named:
            camera, kind, colour = rng.pick(CAMERAS), rng.pick(PAINTED), rng.pick(COLOURS)
    text = f"Is there a {colour} {kind} to the {spoken_name(camera)} of the ego vehicle in the first image?"
    subjects = tuple(obj for obj in there if (obj.camera, obj.kind, obj.colour) == (camera, kind, colour))
    asked = {"camera": camera, "kind": kind, "colour": colour}
    return text, "Yes." if wanted else "No.", asked, subjects


def _first_camera(clip: Clip, rng: SceneRandom) -> Draft | None:
    """Asks where something was that is no longer there, and that no other camera shows."""
    seen = {(obj.name, obj.camera) for scene in clip.scenes for obj in scene.objects}
    unique = [obj for obj in clip.left if sum(name == obj.name for name, _ in seen) == 1]
    if not unique:
        return None
    obj = rng.pick(unique)
    asked = {"kind": obj.kind, "colour": obj.colour}
    return f"Which camera shows the {obj.name} in the first image?", f"{obj.camera}.", asked, (obj,)


def _moving_count(clip: Clip, rng: SceneRandom) -> Draft:
    movers = tuple(obj for obj, _ in clip.moved)
    return "How many objects are moving?", f"{NUMBERS[len(movers)]}.", {}, movers


CLIP_KINDS: dict[str, tuple[int, Callable[[Clip, SceneRandom], Draft | None]]] = {
    "moving": (2, _moving),
    "is_moving": (0, _is_moving),
    "direction": (0, _direction),
    "gone": (2, _gone),
    "new": (2, _new),
    "first": (0, _first),
    "first_camera": (0, _first_camera),
    "moving_count": (0, _moving_count),
}
"""Kind of question -> DriveLM's scoring tag, and the function that draws one."""
