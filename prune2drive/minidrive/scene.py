"""Makes MiniDrive's scenes; a scene is a pure function of its split, difficulty and index.

Coordinates are fractions of an image's width and height, at any resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from prune2drive.cameras import CAMERAS
from prune2drive.errors import InputError, check_choice
from prune2drive.minidrive.scene_random import SceneRandom
from prune2drive.minidrive.vocabulary import (
    COLOURS,
    GRID,
    KINDS,
    LIGHTS,
    PAINTED,
    STATUSES,
    TAG_NUMBERS,
    VEHICLES,
    c_tag,
)

SPLITS = ("train", "search", "val", "test")
FRAME = "-0"  # behind a scene's name: its only frame
Box = tuple[float, float, float, float]

_ASPECT = {  # kind -> width and height in units of its size
    "car": (1.0, 0.62),
    "truck": (1.05, 0.95),
    "bus": (1.4, 0.85),
    "pedestrian": (0.42, 1.05),
    "cyclist": (0.78, 0.9),
    "cone": (0.48, 0.62),
    "barrier": (1.0, 0.45),
    "light": (0.42, 1.05),
}
_FREQUENCY = (4.0, 3.0, 2.5, 3.0, 2.0, 1.5, 1.2)  # of all kinds but traffic lights
_GAP = 0.02  # smallest distance between two objects
_LEAD = 0.06  # smallest difference between the bottom edges of a camera's closest object and the next
_NEAREST = 0.93  # largest bottom edge
_MARGIN = 0.15  # share of a grid cell, at either edge, in which no object has its centre
_TRIES = 40


@dataclass(frozen=True)
class Difficulty:
    """Sets the size and number of objects and the amount of clutter.

    Args:
        size: sizes of objects at the horizon and of the nearest objects, as fractions of the image's width.
        objects: fewest and most objects in the front camera, in the front-side and back, and in the back-side cameras.
        clutter: fewest and most distractors in a camera.
        overlap: largest share of an object that another one may cover.
        is_photo: whether images look like photographs: textured, hazy, with shadows and things in the foreground.
    """

    size: tuple[float, float]
    objects: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    clutter: tuple[int, int]
    overlap: float = 0.0
    is_photo: bool = False


DIFFICULTIES = {
    "easy": Difficulty(size=(0.18, 0.34), objects=((1, 4), (0, 3), (0, 2)), clutter=(0, 2)),
    "standard": Difficulty(size=(0.14, 0.28), objects=((2, 5), (0, 4), (0, 2)), clutter=(1, 4)),
    "dense": Difficulty(size=(0.11, 0.22), objects=((3, 7), (1, 5), (0, 4)), clutter=(3, 7)),
    "photo": Difficulty(
        size=(0.08, 0.24), objects=((3, 7), (1, 5), (0, 4)), clutter=(2, 6), overlap=0.3, is_photo=True
    ),
    "crowded": Difficulty(
        size=(0.08, 0.24), objects=((5, 7), (4, 6), (3, 5)), clutter=(4, 8), overlap=0.3, is_photo=True
    ),
}


@dataclass(frozen=True)
class SceneObject:
    """Describes an object that questions can be about.

    Args:
        camera: the camera that shows the object.
        kind: one of `KINDS`.
        colour: one of `COLOURS`, or None for kinds that have one look.
        status: moving status of a vehicle or state of a traffic light, else None.
        box: (x0, y0, x1, y1), as fractions of the image's width and height.
        number: rank by distance within the camera, from 1 for the closest object.
    """

    camera: str
    kind: str
    colour: str | None
    status: str | None
    box: Box
    number: int = 1

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}" if self.colour else self.kind

    @property
    def cell(self) -> tuple[int, int]:
        """Returns column and row of the grid cell that holds the object's centre."""
        return _cell(self.box)

    @property
    def tag(self) -> str:
        return c_tag(self.number, self.camera, *self.cell)


@dataclass(frozen=True)
class Scene:
    """Describes what the six cameras show at one moment.

    Args:
        name: unique name of the scene.
        key: integers that seed the random draws of rendering and of questions.
        bend: direction of the road ahead: -1 left, 0 straight on, 1 right.
        horizon: distance of the horizon from the image's top, as a fraction of its height.
        objects: the objects of all cameras.
        clutter: camera -> number of distractors, painted shapes that no question is about.
        is_photo: whether images look like photographs.
    """

    name: str
    key: tuple[int, ...]
    bend: int
    horizon: float
    objects: tuple[SceneObject, ...]
    clutter: dict[str, int] = field(default_factory=dict)
    is_photo: bool = False

    @property
    def frame(self) -> str:
        """Returns the name of the scene's only frame."""
        return self.name + FRAME

    @cached_property
    def by_camera(self) -> dict[str, tuple[SceneObject, ...]]:
        """Returns camera -> objects on the ground, closest first."""
        return {
            camera: tuple(obj for obj in self.objects if obj.camera == camera and obj.kind != "light")
            for camera in CAMERAS
        }

    @property
    def light(self) -> SceneObject | None:
        return next((obj for obj in self.objects if obj.kind == "light"), None)

    def patch_owners(self, grid: tuple[int, int]) -> np.ndarray:
        """Returns the index of the object that covers most of each patch, or -1; int [cameras, rows * columns].

        Args:
            grid: rows and columns of an image's patches.
        """
        rows, columns = (np.arange(number) for number in grid)
        owner = np.full((len(CAMERAS), *grid), -1)
        most = np.full((len(CAMERAS), *grid), 0.15)  # an object that covers less of a patch does not own it
        for index, obj in enumerate(self.objects):
            x0, y0, x1, y1 = obj.box
            wide = np.clip(np.minimum(x1 * grid[1], columns + 1) - np.maximum(x0 * grid[1], columns), 0, 1)
            high = np.clip(np.minimum(y1 * grid[0], rows + 1) - np.maximum(y0 * grid[0], rows), 0, 1)
            at = CAMERAS.index(obj.camera)
            area = high[:, None] * wide[None]
            owner[at][area > most[at]] = index
            most[at] = np.maximum(most[at], area)
        return owner.reshape(len(CAMERAS), -1)


def scene_name(split: str, index: int, difficulty: str) -> str:
    return f"{difficulty}-{split}-{index:06d}"


def make_scene(split: str, index: int, difficulty: str = "standard") -> Scene:
    """Makes a scene.

    Args:
        split: one of `SPLITS`, which share no scene.
        index: position within the split, from 0.
        difficulty: one of `DIFFICULTIES`.

    Raises:
        InputError: the split or difficulty is unknown, or the index is negative.
    """
    check_choice("split", split, SPLITS)
    check_choice("difficulty", difficulty, DIFFICULTIES)
    if index < 0:
        raise InputError(f"scene {index}: use an index of 0 or more")
    key = (SPLITS.index(split), list(DIFFICULTIES).index(difficulty), index)
    rng, level = SceneRandom(*key), DIFFICULTIES[difficulty]
    bend, horizon = rng.integer(-1, 1), rng.uniform(0.34, 0.42)
    objects = [obj for camera in CAMERAS for obj in _populate(camera, horizon, level, rng)]
    clutter = {camera: rng.integer(*level.clutter) for camera in CAMERAS}
    return Scene(scene_name(split, index, difficulty), key, bend, horizon, tuple(objects), clutter, level.is_photo)


def _populate(camera: str, horizon: float, level: Difficulty, rng: SceneRandom) -> list[SceneObject]:
    """Places the objects of a camera: those on the ground, closest first, then the traffic light."""
    low, high = level.objects[(0, 1, 1, 1, 2, 2)[CAMERAS.index(camera)]]
    count = 0 if camera != CAMERAS[0] and rng.chance(0.2) else rng.integer(low, high)
    objects: list[SceneObject] = []
    lights: list[SceneObject] = []
    if camera == CAMERAS[0] and rng.chance(len(LIGHTS) / (len(LIGHTS) + 1)):
        lights = [
            SceneObject(
                camera, "light", None, rng.pick(LIGHTS), _place_traffic_light(horizon, level, rng), TAG_NUMBERS[-1]
            )
        ]
    kind = None
    for _ in range(count):
        if kind is None or not rng.chance(0.3):  # kinds repeat, so that there is something to count
            kind = rng.pick(KINDS[:-1], _FREQUENCY)
        if sum(obj.kind == kind for obj in objects) < 3:
            obj = place(camera, kind, horizon, level, [*objects, *lights], rng)
            while not obj and not objects:  # the first object is always placed
                obj = place(camera, kind, horizon, level, lights, rng)
            objects += [obj] if obj else []
    objects.sort(key=lambda obj: -obj.box[3])
    return [replace(obj, number=rank) for rank, obj in enumerate(objects, 1)] + lights


def place(
    camera: str, kind: str, horizon: float, level: Difficulty, others: list[SceneObject], rng: SceneRandom
) -> SceneObject | None:
    """Returns a new object on the ground, or None if there is no room.

    The object overlaps no other by more than the difficulty allows, has a grid cell to itself and, if painted, a colour
    that no other of its kind has.
    The first object placed is the closest, by a margin.
    """
    ground = [other for other in others if other.kind != "light"]
    taken = {(other.kind, other.colour) for other in others}
    colours: list[str | None] = [c for c in COLOURS if (kind, c) not in taken] if kind in PAINTED else [None]
    limit = min((other.box[3] for other in ground[:1]), default=_NEAREST + _LEAD) - _LEAD
    for _ in range(_TRIES):
        farthest = horizon + (0.08 if ground else 0.3)
        bottom = rng.uniform(farthest, limit)
        near = (bottom - horizon) / (_NEAREST - horizon)
        size = (level.size[0] + (level.size[1] - level.size[0]) * near) * rng.uniform(0.9, 1.1)
        width, height = _ASPECT[kind][0] * size, _ASPECT[kind][1] * size
        x = rng.uniform(0.01, 0.99 - width)
        box = (x, bottom - height, x + width, bottom)
        if _free(box, others, level.overlap):
            status = rng.pick(STATUSES) if kind in VEHICLES else None
            return SceneObject(camera, kind, rng.pick(colours), status, box)
    return None


def _place_traffic_light(horizon: float, level: Difficulty, rng: SceneRandom) -> Box:
    """Returns the box of a traffic light above the horizon."""
    while True:
        size = level.size[0] * rng.uniform(1.0, 1.3)
        width, height = _ASPECT["light"][0] * size, _ASPECT["light"][1] * size
        x, y = rng.uniform(0.05, 0.95 - width), rng.uniform(0.02, horizon - height)
        box = (x, y, x + width, y + height)
        if _free(box, []):
            return box


def _cell(box: Box) -> tuple[int, int]:
    return int((box[0] + box[2]) / 2 * GRID), int((box[1] + box[3]) / 2 * GRID)


def _free(box: Box, others: list[SceneObject], overlap: float = 0.0) -> bool:
    """Returns whether a box has a grid cell to itself, its centre away from the cell's edges, and its own place.

    Args:
        box: the box.
        others: objects that are there.
        overlap: largest share of the box, or of another, that both may have in common; at 0 there is a gap.
    """
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        if not _MARGIN < (low + high) / 2 * GRID % 1 < 1 - _MARGIN:
            return False
    return all(_cell(box) != _cell(o.box) and _apart(box, o.box, overlap) for o in others)


def _apart(box: Box, other: Box, overlap: float) -> bool:
    if overlap:
        wide, high = (max(0.0, min(box[2 + at], other[2 + at]) - max(box[at], other[at])) for at in (0, 1))
        return wide * high <= overlap * min((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (box, other))
    return box[2] + _GAP < other[0] or other[2] + _GAP < box[0] or box[3] + _GAP < other[1] or other[3] + _GAP < box[1]
