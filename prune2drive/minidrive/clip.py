"""Makes MiniDrive's clips: a scene and its past, in which some objects moved, came or left.

A clip is a pure function of its scene's split, difficulty and index, and of the number of times. The last time shows
the scene as it is without a past, so that splits share no clip. The ego vehicle, and all that is no object, stands
still.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from prune2drive.cameras import CAMERAS
from prune2drive.minidrive.scene import DIFFICULTIES, Difficulty, Scene, SceneObject, make_scene, place, scene_name
from prune2drive.minidrive.scene_random import SceneRandom
from prune2drive.minidrive.vocabulary import PAINTED

MOST_MOVING, MOST_OTHERS = 3, 2  # objects of a clip that move, if any; that come, and that leave, where they can
_FAR = 0.15  # least distance that a moving object covers sideways, as a fraction of the image's width
_TRIES = 8
_EVENTS = len(CAMERAS) + 2  # of the random streams of a scene: cameras, what they share, and questions come before


@dataclass(frozen=True)
class Clip:
    """Describes what the six cameras show at several times.

    Args:
        scenes: the scene at each time, the earliest first.
        moved: objects that move, as they are in the end, with their past places.
        came: objects that are there in the end and not at first.
        left: objects that are there at first and not in the end.
    """

    scenes: tuple[Scene, ...]
    moved: tuple[tuple[SceneObject, SceneObject], ...] = ()
    came: tuple[SceneObject, ...] = ()
    left: tuple[SceneObject, ...] = ()

    @property
    def now(self) -> Scene:
        return self.scenes[-1]


def make_clip(split: str, index: int, difficulty: str, times: int) -> Clip:
    """Makes a clip; of one time, it is the scene.

    Args:
        split: one of `SPLITS`.
        index: position within the split, from 0.
        difficulty: one of `DIFFICULTIES`.
        times: how many times it shows.

    Raises:
        InputError: the split or difficulty is unknown, or the index is negative.
    """
    now = replace(make_scene(split, index, difficulty), name=clip_name(split, index, difficulty, times))
    if times == 1:
        return Clip((now,))
    rng = SceneRandom(*now.key, _EVENTS)
    moved = _draw_moved(now, DIFFICULTIES[difficulty], rng)
    still = [obj for obj in now.objects if obj.colour and obj not in [mover for mover, _ in moved]]
    came = [_take(still, rng) for _ in range(min(rng.integer(1, MOST_OTHERS), len(still)))]
    left = _draw_left(now, [past for _, past in moved], DIFFICULTIES[difficulty], rng)
    steps = [rng.integer(1, times - 1) for _ in (*came, *left)]  # the time from which one is there, or is not
    scenes = []
    for time in range(times - 1):
        late = [obj for obj, step in zip(came, steps, strict=False) if time < step]
        early = [obj for obj, step in zip(left, steps[len(came) :], strict=True) if time < step]
        places = {obj: _between(past, obj, time / (times - 1)) for obj, past in moved}
        shown = [places.get(obj, obj) for obj in now.objects if obj not in late]
        scenes.append(replace(now, objects=_numbered([*shown, *early])))
    return Clip((*scenes, now), tuple(moved), tuple(came), tuple(left))


def clip_name(split: str, index: int, difficulty: str, times: int) -> str:
    """Returns a clip's name; that of its scene, where it shows one time."""
    name = scene_name(split, index, difficulty)
    return name if times == 1 else f"{name}-x{times}"


def _draw_moved(now: Scene, level: Difficulty, rng: SceneRandom) -> list[tuple[SceneObject, SceneObject]]:
    """Draws objects that move, none of them stopped, and where they were: in a free place of their camera, far away."""
    able = [obj for obj in now.objects if obj.colour and obj.status != "Stopped"]
    moved: list[tuple[SceneObject, SceneObject]] = []
    for _ in range(min(rng.integer(0, MOST_MOVING), len(able))):
        obj = _take(able, rng)
        others = _in_camera(obj.camera, (*now.objects, *(past for _, past in moved)))
        for _ in range(_TRIES):
            past = place(obj.camera, obj.kind, now.horizon, level, others, rng)
            if past and abs(middle(past) - middle(obj)) >= _FAR:
                moved.append((obj, replace(obj, box=past.box)))
                break
    return moved


def _draw_left(now: Scene, pasts: list[SceneObject], level: Difficulty, rng: SceneRandom) -> list[SceneObject]:
    """Draws objects that were there and no longer are, in free places of any camera."""
    left: list[SceneObject] = []
    for _ in range(rng.integer(1, MOST_OTHERS)):
        camera, kind = rng.pick(CAMERAS), rng.pick(PAINTED)
        others = _in_camera(camera, (*now.objects, *pasts, *left))
        gone = place(camera, kind, now.horizon, level, others, rng)
        left += [gone] if gone else []
    return left


def middle(obj: SceneObject) -> float:
    """Returns how far right an object's middle is."""
    return (obj.box[0] + obj.box[2]) / 2


def seen_in(scene: Scene, obj: SceneObject) -> list[int]:
    """Returns the indices of an object of a clip among those of one of its scenes: one, or none where it is not there.

    Of painted objects no two that a camera shows have one name.
    """
    return [
        at
        for at, other in enumerate(scene.objects)
        if other == obj or obj.colour and (other.camera, other.name) == (obj.camera, obj.name)
    ]


def _take(objects: list[SceneObject], rng: SceneRandom) -> SceneObject:
    return objects.pop(rng.integer(0, len(objects) - 1))


def _in_camera(camera: str, objects: tuple[SceneObject, ...]) -> list[SceneObject]:
    """Returns a camera's objects, the closest first."""
    return sorted((obj for obj in objects if obj.camera == camera), key=lambda obj: -obj.box[3])


def _between(past: SceneObject, now: SceneObject, share: float) -> SceneObject:
    """Returns an object on its straight way from the past, at share 0, to the current place."""
    x0, y0, x1, y1 = (a + (b - a) * share for a, b in zip(past.box, now.box, strict=True))
    return replace(now, box=(x0, y0, x1, y1))


def _numbered(objects: list[SceneObject]) -> tuple[SceneObject, ...]:
    """Returns objects as a scene has them: camera by camera, numbered by distance, the traffic light last."""
    ordered: list[SceneObject] = []
    for camera in CAMERAS:
        mine = _in_camera(camera, tuple(objects))
        ground = [obj for obj in mine if obj.kind != "light"]
        ordered += [replace(obj, number=rank) for rank, obj in enumerate(ground, 1)]
        ordered += [obj for obj in mine if obj.kind == "light"]
    return tuple(ordered)
