"""What a MiniDrive scene contains: a pure function of (split, difficulty, index).

Everything is laid out in units of a camera's width and height, so that a scene renders at any resolution.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np

from prune2drive.cameras import CAMERAS
from prune2drive.errors import InputError
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
Box = tuple[float, float, float, float]
T = TypeVar("T")

_ASPECT = {  # width and height of each kind, in units of the size drawn for it
    "car": (1.0, 0.62),
    "truck": (1.05, 0.95),
    "bus": (1.4, 0.85),
    "pedestrian": (0.42, 1.05),
    "cyclist": (0.78, 0.9),
    "cone": (0.48, 0.62),
    "barrier": (1.0, 0.45),
    "light": (0.42, 1.05),
}
_FREQUENCY = (4.0, 3.0, 2.5, 3.0, 2.0, 1.5, 1.2)  # of the kinds on the ground
_GAP = 0.02  # between two objects
_LEAD = 0.06  # how much nearer than the next its closest object is, in every camera
_NEAREST, _MARGIN = 0.93, 0.15  # lowest bottom edge; share of a cell in which no centre lies, on each side
_TRIES = 40


@dataclass(frozen=True)
class Difficulty:
    """How small the objects are and how much there is around them.

    Args:
        size: smallest (at the horizon) and largest (nearest) object, in widths of the image.
        objects: fewest and most objects in front, at the front sides and back, and at the rear sides.
        clutter: fewest and most painted things a camera that are none of the objects asked about.
    """

    size: tuple[float, float]
    objects: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    clutter: tuple[int, int]


DIFFICULTIES = {
    "easy": Difficulty(size=(0.18, 0.34), objects=((1, 4), (0, 3), (0, 2)), clutter=(0, 2)),
    "standard": Difficulty(size=(0.14, 0.28), objects=((2, 5), (0, 4), (0, 2)), clutter=(1, 4)),
    "dense": Difficulty(size=(0.11, 0.22), objects=((3, 7), (1, 5), (0, 4)), clutter=(3, 7)),
}


class Dice:
    """Random draws that are the same on every machine.

    Only `Random.random` is used: for an integer seed its stream is fixed across versions and platforms.
    The key is hashed first, since the generator's own seeding maps some short keys to the same stream.
    """

    def __init__(self, *key: int) -> None:
        digest = hashlib.sha256(repr(key).encode()).digest()
        self._random = random.Random(int.from_bytes(digest[:16], "big"))

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.random()

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return low + int(self._random.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def pick(self, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
        if weights is None:
            return options[self.integer(0, len(options) - 1)]
        left = self.uniform(0, sum(weights))
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]


@dataclass(frozen=True)
class Thing:
    """An object that can be asked about.

    Args:
        colour: one of COLOURS for painted kinds, else None.
        status: the moving status of a vehicle or the state of a traffic light, else None.
        box: (x0, y0, x1, y1) in units of the camera's width and height.
        number: its rank by distance in its camera, from 1 for the closest.
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
        """Column and row of the grid cell its centre lies in."""
        return _cell(self.box)

    @property
    def tag(self) -> str:
        return c_tag(self.number, self.camera, *self.cell)


@dataclass(frozen=True)
class Scene:
    """Six views of one moment.

    Args:
        key: integers that seed everything drawn at random when it is rendered or asked about.
        bend: where the road ahead leads: -1 left, 0 straight on, 1 right.
        horizon: height of the horizon, from the top.
        clutter: number of painted things in each camera that are no objects.
    """

    name: str
    key: tuple[int, ...]
    bend: int
    horizon: float
    things: tuple[Thing, ...]
    clutter: dict[str, int] = field(default_factory=dict)

    @cached_property
    def by_camera(self) -> dict[str, tuple[Thing, ...]]:
        """The objects on the ground, closest first."""
        return {camera: tuple(t for t in self.things if t.camera == camera and t.kind != "light") for camera in CAMERAS}

    @property
    def light(self) -> Thing | None:
        return next((thing for thing in self.things if thing.kind == "light"), None)

    def patches(self, grid: int) -> np.ndarray:
        """Index of the object that covers most of each patch, -1 for none; int [cameras, grid * grid]."""
        owner = np.full((len(CAMERAS), grid, grid), -1)
        most = np.full((len(CAMERAS), grid, grid), 0.15)  # of a patch: less is no object's
        low = np.arange(grid)
        for index, thing in enumerate(self.things):
            x0, y0, x1, y1 = (edge * grid for edge in thing.box)
            wide = np.clip(np.minimum(x1, low + 1) - np.maximum(x0, low), 0, 1)
            high = np.clip(np.minimum(y1, low + 1) - np.maximum(y0, low), 0, 1)
            at = CAMERAS.index(thing.camera)
            area = high[:, None] * wide[None]
            owner[at][area > most[at]] = index
            most[at] = np.maximum(most[at], area)
        return owner.reshape(len(CAMERAS), -1)


def scene_name(split: str, index: int, difficulty: str) -> str:
    return f"{difficulty}-{split}-{index:06d}"


def make_scene(split: str, index: int, difficulty: str = "standard") -> Scene:
    """The scene at an index of a split.

    Raises:
        InputError: no such split or difficulty, or an index below 0.
    """
    if split not in SPLITS:
        raise InputError(f"split={split}: no such split of MiniDrive; choose one of {', '.join(SPLITS)}")
    if difficulty not in DIFFICULTIES:
        raise InputError(f"difficulty={difficulty}: unknown to MiniDrive; choose one of {', '.join(DIFFICULTIES)}")
    if index < 0:
        raise InputError(f"scene {index}: indices start at 0")
    key = (SPLITS.index(split), list(DIFFICULTIES).index(difficulty), index)
    dice, level = Dice(*key), DIFFICULTIES[difficulty]
    bend, horizon = dice.integer(-1, 1), dice.uniform(0.34, 0.42)
    things = [thing for camera in CAMERAS for thing in _populate(camera, horizon, level, dice)]
    clutter = {camera: dice.integer(*level.clutter) for camera in CAMERAS}
    return Scene(scene_name(split, index, difficulty), key, bend, horizon, tuple(things), clutter)


def _populate(camera: str, horizon: float, level: Difficulty, dice: Dice) -> list[Thing]:
    """A camera's objects, closest first, then its traffic light."""
    low, high = level.objects[(0, 1, 1, 1, 2, 2)[CAMERAS.index(camera)]]
    count = 0 if camera != CAMERAS[0] and dice.chance(0.2) else dice.integer(low, high)
    things: list[Thing] = []
    lights: list[Thing] = []
    if camera == CAMERAS[0] and dice.chance(len(LIGHTS) / (len(LIGHTS) + 1)):
        lights = [Thing(camera, "light", None, dice.pick(LIGHTS), _hang(horizon, level, dice), TAG_NUMBERS[-1])]
    kind = None
    for _ in range(count):
        if kind is None or not dice.chance(0.3):  # repeats, so that there is something to count
            kind = dice.pick(KINDS[:-1], _FREQUENCY)
        if sum(thing.kind == kind for thing in things) < 3:
            thing = _place(camera, kind, horizon, level, [*things, *lights], dice)
            while not thing and not things:  # a camera that is to show something shows its closest object
                thing = _place(camera, kind, horizon, level, lights, dice)
            things += [thing] if thing else []
    things.sort(key=lambda thing: -thing.box[3])
    return [Thing(**{**vars(thing), "number": rank}) for rank, thing in enumerate(things, 1)] + lights


def _place(camera: str, kind: str, horizon: float, level: Difficulty, others: list[Thing], dice: Dice) -> Thing | None:
    """An object on the ground that overlaps no other and shares no cell, or None where no room was found.

    The first one placed is the closest, by a margin; its look differs from all others' of its kind.
    """
    ground = [other for other in others if other.kind != "light"]
    taken = {(other.kind, other.colour) for other in others}
    colours: list[str | None] = [c for c in COLOURS if (kind, c) not in taken] if kind in PAINTED else [None]
    limit = min((other.box[3] for other in ground[:1]), default=_NEAREST + _LEAD) - _LEAD
    for _ in range(_TRIES):
        farthest = horizon + (0.08 if ground else 0.3)
        bottom = dice.uniform(farthest, limit)
        near = (bottom - horizon) / (_NEAREST - horizon)
        size = (level.size[0] + (level.size[1] - level.size[0]) * near) * dice.uniform(0.9, 1.1)
        width, height = _ASPECT[kind][0] * size, _ASPECT[kind][1] * size
        left = dice.uniform(0.01, 0.99 - width)
        box = (left, bottom - height, left + width, bottom)
        if _free(box, others):
            status = dice.pick(STATUSES) if kind in VEHICLES else None
            return Thing(camera, kind, dice.pick(colours), status, box)
    return None


def _hang(horizon: float, level: Difficulty, dice: Dice) -> Box:
    """A box for a traffic light above the road."""
    while True:
        size = level.size[0] * dice.uniform(1.0, 1.3)
        width, height = _ASPECT["light"][0] * size, _ASPECT["light"][1] * size
        left, top = dice.uniform(0.05, 0.95 - width), dice.uniform(0.02, horizon - height)
        box = (left, top, left + width, top + height)
        if _free(box, []):
            return box


def _cell(box: Box) -> tuple[int, int]:
    return int((box[0] + box[2]) / 2 * GRID), int((box[1] + box[3]) / 2 * GRID)


def _free(box: Box, others: list[Thing]) -> bool:
    """Whether a box overlaps none, has a cell to itself, and its centre lies clear of the cell's edges."""
    for low, high in ((box[0], box[2]), (box[1], box[3])):
        if not _MARGIN < (low + high) / 2 * GRID % 1 < 1 - _MARGIN:
            return False
    return all(
        _cell(box) != _cell(o.box)
        and (
            box[2] + _GAP < o.box[0] or o.box[2] + _GAP < box[0] or box[3] + _GAP < o.box[1] or o.box[3] + _GAP < box[1]
        )
        for o in others
    )
