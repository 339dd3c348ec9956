"""Targets of MiniDrive's auxiliary losses: attributes of objects and changes, as words, and the tokens that decide.

Shape suffixes: I images, N patches of an image, Q questions, V visual tokens of a scene.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prune2drive.cameras import CAMERAS, camera_of, time_of
from prune2drive.minidrive.clip import Clip, middle, seen_in
from prune2drive.minidrive.questions import LETTERS, Question
from prune2drive.minidrive.scene import Scene, SceneObject
from prune2drive.minidrive.vocabulary import COLOURS, COLUMNS, KINDS, LIGHTS, ROWS, STATUSES, TAG_NUMBERS

IGNORED = -100
"""Target that no loss counts."""

_STATES = {**dict(zip(STATUSES, LETTERS, strict=True)), **{light: light for light in LIGHTS}}
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "presence": ("object", "no"),
    "kind": KINDS,
    "colour": COLOURS,
    "state": tuple(_STATES.values()),
    "number": tuple(f"<c{number}," for number in TAG_NUMBERS),
    "camera": CAMERAS,
    "column": tuple(f",{column}" for column in COLUMNS),
    "row": tuple(f",{row}>" for row in ROWS),
    "bend": ("left", "straight", "right"),  # of the road ahead
}
"""Attribute of a patch or an object -> the words for its values."""
CHANGES = ("still", "left", "right", "current", "first", "moving")
"""Words for what became of a patch: it shows what has not moved, what has moved to a side, or what the current image
alone shows; or it is free where the first image showed what has left, or what has moved elsewhere."""


def patch_attributes(clips: Sequence[Clip], grid: tuple[int, int], views: Sequence[str] = CAMERAS) -> dict[str, Tensor]:
    """Returns the attributes of all patches: attribute -> index of a word, IGNORED where it has none; [I, N].

    All patches of an object have all attributes of the object, its number and the grid cell of its centre included.

    Args:
        clips: the scenes, whose images follow one another.
        grid: rows and columns of an image's patches.
        views: the views of each clip, in order.
    """
    found = [[_scene_attributes(scene, grid) for scene in clip.scenes] for clip in clips]
    shown = [(time_of(view) or 0, CAMERAS.index(camera_of(view))) for view in views]
    words = {name: [clip[time][name][camera] for clip in found for time, camera in shown] for name in ATTRIBUTES}
    return {name: torch.from_numpy(np.array(images)) for name, images in words.items()}


def _scene_attributes(scene: Scene, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """Returns the attributes of the patches of all cameras, each [cameras, N]."""
    words = {name: np.full((len(CAMERAS), math.prod(grid)), IGNORED) for name in ATTRIBUTES}
    words["presence"][:] = 1
    words["camera"][:] = np.arange(len(CAMERAS))[:, None]
    words["bend"][0] = scene.bend + 1
    owner = scene.patch_owners(grid)
    words["presence"][owner >= 0] = 0
    for index, obj in enumerate(scene.objects):
        for name, word in _object_words(obj).items():
            words[name][owner == index] = word
    return words


def change_targets(clips: Sequence[Clip], grid: tuple[int, int], views: Sequence[str]) -> Tensor:
    """Returns what became of all patches: index of a word of `CHANGES`, IGNORED where nothing was or is; [I, N].

    Args:
        clips: the clips, whose images follow one another; images of earlier times have IGNORED alone.
        grid: rows and columns of an image's patches.
        views: the views of each clip, in order.
    """
    images = []
    for clip in clips:
        changes, blank = _changes(clip, grid), np.full(math.prod(grid), IGNORED)
        last = len(clip.scenes) - 1
        images += [changes[CAMERAS.index(camera_of(v))] if time_of(v) == last else blank for v in views]
    return torch.from_numpy(np.array(images))


def first_sight(clips: Sequence[Clip], grid: tuple[int, int], views: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Returns where each visual token of an object of a clip's last images was seen in the first ones.

    Args:
        clips: the clips.
        grid: rows and columns of an image's patches.
        views: the views of each clip, in order.

    Returns:
        For the L visual tokens of the last images whose object was there at first: [2, L], index of the clip and index
        among its visual tokens; and bool [L, V], the visual tokens of that object in the first images.
    """
    seen, evidence = [], []
    for at, clip in enumerate(clips):
        last = len(clip.scenes) - 1
        owners = [scene.patch_owners(grid) for scene in clip.scenes]
        shown = np.array([owners[time_of(view) or 0][CAMERAS.index(camera_of(view))] for view in views])
        times = np.array([time_of(view) for view in views])[:, None]
        for index, obj in enumerate(clip.now.objects):
            camera = np.array([camera_of(view) == obj.camera for view in views])[:, None]
            before = camera & (times == 0) & np.isin(shown, seen_in(clip.scenes[0], obj))
            if before.any():
                tokens = np.flatnonzero(camera & (times == last) & (shown == index))
                seen += [(at, token) for token in tokens]
                evidence += [before.reshape(-1)] * len(tokens)
    found = np.array(evidence, dtype=bool).reshape(-1, len(views) * math.prod(grid))
    return torch.tensor(seen, dtype=torch.long).view(-1, 2).T, torch.from_numpy(found)


def _changes(clip: Clip, grid: tuple[int, int]) -> np.ndarray:
    """Returns what became of the patches of all cameras; [cameras, N]."""
    came, left = ({(obj.camera, obj.name) for obj in objects} for objects in (clip.came, clip.left))
    side = {(obj.camera, obj.name): "left" if middle(obj) < middle(past) else "right" for obj, past in clip.moved}
    words = np.full((len(CAMERAS), math.prod(grid)), IGNORED)
    first, now = clip.scenes[0], clip.now
    before, owner = first.patch_owners(grid), now.patch_owners(grid)
    for index, obj in enumerate(first.objects):
        who = obj.camera, obj.name
        if who in left or who in side:
            words[before == index] = CHANGES.index("first" if who in left else "moving")
    for index, obj in enumerate(now.objects):
        who = obj.camera, obj.name
        words[owner == index] = CHANGES.index("current" if who in came else side.get(who, "still"))
    return words


def question_targets(
    asked: Sequence[tuple[int, int, Clip, Question]], grid: tuple[int, int], views: Sequence[str] = CAMERAS
) -> dict[str, Any]:
    """Returns what the auxiliary losses of a batch's questions need.

    Args:
        asked: for every question, the index of its scene in the batch, the position where its answer begins, its
            scene and itself.
        grid: rows and columns of an image's patches.
        views: the views of each scene, in order.

    Returns:
        `answer_start` [2, Q], scene and position where the answer begins; `asked` and `subject`, the attributes [Q]
        that the question names and those of the only object that decides the answer; `evidence` bool [Q, V], the
        visual tokens of all objects that decide the answer, at every time.
    """
    owners = {id(clip): [scene.patch_owners(grid) for scene in clip.scenes] for *_, clip, _ in asked}
    evidence = []
    for *_, clip, question in asked:
        decide = [[at for obj in question.subjects for at in seen_in(scene, obj)] for scene in clip.scenes]
        shown = [np.isin(owner, subjects) for owner, subjects in zip(owners[id(clip)], decide, strict=True)]
        evidence.append([shown[time_of(view) or 0][CAMERAS.index(camera_of(view))] for view in views])
    questions = [question for *_, question in asked]
    return {
        "answer_start": torch.tensor([(at, start) for at, start, *_ in asked]).T,
        "evidence": torch.from_numpy(np.array(evidence)).flatten(1),
        "asked": _tensors([_words(question.asked) for question in questions]),
        "subject": _tensors([_object_words(q.subjects[0]) if len(q.subjects) == 1 else {} for q in questions]),
    }


def _words(attributes: Mapping[str, Any]) -> dict[str, int]:
    """Returns attribute -> index of its word, for those attributes of an object that are given and not None."""
    known = {name: value for name, value in attributes.items() if value is not None}
    words = {}
    if "kind" in known:
        words["kind"] = KINDS.index(known["kind"])
    if "number" in known:
        words["number"] = known["number"] - 1
    if "camera" in known:
        words["camera"] = CAMERAS.index(known["camera"])
    if "cell" in known:
        words["column"], words["row"] = known["cell"]
    if "colour" in known:
        words["colour"] = COLOURS.index(known["colour"])
    if "status" in known:
        words["state"] = list(_STATES).index(known["status"])
    return words


def _object_words(obj: SceneObject) -> dict[str, int]:
    return _words(vars(obj) | {"cell": obj.cell})


def _tensors(words: list[dict[str, int]]) -> dict[str, Tensor]:
    return {name: torch.tensor([found.get(name, IGNORED) for found in words]) for name in ATTRIBUTES}
