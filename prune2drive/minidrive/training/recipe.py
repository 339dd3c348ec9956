"""Describes the batches that MiniDrive's model is trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prune2drive.cameras import CAMERAS, clip_views
from prune2drive.errors import InputError, check_choice, check_whole
from prune2drive.minidrive.clip_questions import CLIP_KINDS
from prune2drive.minidrive.questions import QUESTION_KINDS, VERSIONS
from prune2drive.minidrive.scene import DIFFICULTIES
from prune2drive.minidrive.scene_random import SceneRandom

SPACINGS = {"even": (1.0, 1.0), "gaps": (1.0, 8.0), "dense": (0.1, 1.0)}
"""Name -> smallest and largest mean step between the position ids of visual tokens."""


@dataclass(frozen=True)
class Recipe:
    """Describes the batches of a split.

    Args:
        questions: number of questions drawn for a scene of the train split, 0 for images (of clips also the
            prefix) alone; scenes of other splits have the questions of their frame.
        difficulties: difficulty -> relative frequency of its scenes.
        kinds: kind of question -> relative frequency, where a scene shows each camera once.
        clip_kinds: the same where it shows them several times.
        scenes: number of scenes of a step, over all ranks.
        split: split of the scenes.
        version: version of MiniDrive, whose questions those of other splits are.
        times: how often a scene shows each camera, as the same option of the data set.
        resolution: width and height of an image in pixels.
        other_resolutions: other width and height -> share of the steps that have it.
        other_shapes: tokens of an image as "rows x columns" -> share of the steps whose images are made smaller to
            have them, as `pruner=resize` does.
        other_views: share of the steps that show two to six of the cameras, in random order.
        spacing: how position ids follow one another among visual tokens -> relative frequency: `even`, by one, `gaps`,
            by more, or `dense`, by less, irregularly and from anywhere; drawn for each scene. Always `even` by default.
        patch: width and height in pixels of the patch that becomes a visual token.
        shape: tokens of an image as "rows x columns" where its size does not give them; a step's, see `other_shapes`.
        seed: seed of all draws; a step's batch depends on the recipe and the step alone.

    Raises:
        InputError: a difficulty or a kind of question does not exist, a size is none, or there is no scene or time.
    """

    questions: int
    difficulties: Mapping[str, float]
    kinds: Mapping[str, float]
    clip_kinds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(CLIP_KINDS, 1.0))
    scenes: int = 1
    split: str = "train"
    version: int = 1
    times: int = 1
    resolution: int = 112
    other_resolutions: Mapping[int, float] = field(default_factory=dict)
    other_shapes: Mapping[str, float] = field(default_factory=dict)
    other_views: float = 0.0
    spacing: Mapping[str, float] = field(default_factory=lambda: {"even": 1.0})
    patch: int = 14
    shape: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("recipe.times", self.times)
        for difficulty in self.difficulties:
            check_choice("recipe.difficulties", difficulty, DIFFICULTIES)
        for kind in self.kinds:
            check_choice("recipe.kinds", kind, QUESTION_KINDS)
        for kind in self.clip_kinds:
            check_choice("recipe.clip_kinds", kind, CLIP_KINDS)
        for spacing in self.spacing:
            check_choice("recipe.spacing", spacing, SPACINGS)
        for resolution in (self.resolution, *self.other_resolutions):
            if resolution % self.patch:
                raise InputError(f"recipe: resolution {resolution}: use a multiple of the patch size, {self.patch}")
        for shape in self.other_shapes:
            if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", str(shape)):
                raise InputError(f"recipe.other_shapes: {shape}: write rows and columns of tokens as 2x3")
        check_whole("recipe.scenes", self.scenes)

    @property
    def frame_kinds(self) -> tuple[str, ...]:
        """The kinds that a frame is asked for, in order; a question may be of the kind that replaces its own."""
        return VERSIONS[self.version] if self.times == 1 else tuple(CLIP_KINDS)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's patches."""
        if not self.shape:
            return self.resolution // self.patch, self.resolution // self.patch
        rows, columns = self.shape.split("x")
        return int(rows), int(columns)

    def of_step(self, step: int) -> tuple[Recipe, tuple[str, ...]]:
        """Returns the recipe of a step, in its resolution or shape, and the views that it shows."""
        rng = SceneRandom(self.seed, 1 << 17, step)
        cameras: tuple[str, ...] = CAMERAS
        sizes: list[tuple[dict[str, Any], float]] = [
            *(({"resolution": resolution}, share) for resolution, share in self.other_resolutions.items()),
            *(({"shape": shape}, share) for shape, share in self.other_shapes.items()),
        ]
        point, drawn = rng.uniform(0, 1), dict[str, Any]()
        for size, share in sizes:
            drawn, point = (size, 1.0) if point < share else (drawn, point - share)
        if rng.chance(self.other_views):
            left = list(CAMERAS)
            cameras = tuple(left.pop(rng.integer(0, len(left) - 1)) for _ in range(rng.integer(2, len(CAMERAS))))
        plain = replace(self, **drawn, other_resolutions={}, other_shapes={}, other_views=0.0)
        return plain, clip_views(cameras, self.times)
