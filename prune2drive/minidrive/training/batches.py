"""MiniDrive packed for training: many questions after one visual prefix, the same batch for the same step.

Shape suffixes: S scenes, I images, H height, W width, N tokens of an image, T positions of prefix and questions,
Q positions after the prefix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from prune2drive.cameras import CAMERAS
from prune2drive.data.dataset import multi_view_prompt
from prune2drive.errors import InputError, check_choice, check_whole
from prune2drive.minidrive.dataset import photograph
from prune2drive.minidrive.questions import QUESTION_KINDS, Question, ask, frame_questions
from prune2drive.minidrive.scene import DIFFICULTIES, Scene, make_scene
from prune2drive.minidrive.scene_random import SceneRandom
from prune2drive.minidrive.training.targets import IGNORED, patch_attributes, question_targets
from prune2drive.sample import IMAGE_MARKER

PADDING = -1  # segment of padding
PREFIX = -2  # segment of the visual prefix, which every question attends to
LONGEST = 6000  # about the largest position id
SPACINGS = {"even": (1.0, 1.0), "gaps": (1.0, 8.0), "dense": (0.1, 1.0)}
"""Name -> smallest and largest mean step between the position ids of visual tokens."""
Batch = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """Describes the batches of a split.

    Args:
        questions: number of questions drawn for a scene of the train split, 0 for images alone; scenes of other
            splits have the questions of their frame.
        difficulties: difficulty -> relative frequency of its scenes.
        kinds: kind of question -> relative frequency.
        scenes: number of scenes of a step, over all ranks.
        split: split of the scenes.
        version: version of MiniDrive, whose questions those of other splits are.
        resolution: width and height of an image in pixels.
        other_resolutions: other width and height -> share of the steps that have it.
        other_shapes: tokens of an image as "rows x columns" -> share of the steps whose images are made smaller to
            have them, as `pruner=resize` does.
        other_views: share of the steps that leave out some cameras, and show the others in another order.
        spacing: how position ids follow one another among visual tokens -> relative frequency: `even`, by one, `gaps`,
            by more, or `dense`, by less, irregularly and from anywhere. Always `even` by default.
        patch: width and height in pixels of the patch that becomes a visual token.
        shape: tokens of an image as "rows x columns" where its size does not give them; a step's, see `other_shapes`.
        seed: seed of all draws; a step's batch depends on the recipe and the step alone.

    Raises:
        InputError: a difficulty or a kind of question does not exist, a size is none, or there is no scene.
    """

    questions: int
    difficulties: Mapping[str, float]
    kinds: Mapping[str, float]
    scenes: int = 1
    split: str = "train"
    version: int = 1
    resolution: int = 112
    other_resolutions: Mapping[int, float] = field(default_factory=dict)
    other_shapes: Mapping[str, float] = field(default_factory=dict)
    other_views: float = 0.0
    spacing: Mapping[str, float] = field(default_factory=lambda: {"even": 1.0})
    patch: int = 14
    shape: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        for difficulty in self.difficulties:
            check_choice("recipe.difficulties", difficulty, DIFFICULTIES)
        for kind in self.kinds:
            check_choice("recipe.kinds", kind, QUESTION_KINDS)
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
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's patches."""
        if not self.shape:
            return self.resolution // self.patch, self.resolution // self.patch
        rows, columns = self.shape.split("x")
        return int(rows), int(columns)

    def of_step(self, step: int) -> tuple[Recipe, tuple[str, ...]]:
        """Returns the recipe of a step, in its resolution or shape, and the cameras that it shows."""
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
        return replace(self, **drawn, other_resolutions={}, other_shapes={}, other_views=0.0), cameras


@dataclass
class PackedScene:
    """Holds the tokens of a scene's prefix and questions.

    Args:
        scene: the scene.
        tokens: (id, label, segment, position) of every token; the label is the next token's id in an answer.
        questions: position where the answer begins, and the question.
    """

    scene: Scene
    tokens: list[tuple[int, int, int, int]]
    questions: list[tuple[int, Question]] = field(default_factory=list)


class PackedMiniDrive(IterableDataset[Batch]):
    """Yields a batch for every step: this rank's scenes of the step.

    Args:
        plan: returns the steps to make batches for and their recipes; called when iteration begins.
        tokenizer: a tokenizer with a chat template and one token for every word of `ATTRIBUTES`.
        rank: index of this process.
        world: number of processes.
    """

    def __init__(
        self,
        plan: Callable[[], Iterable[tuple[int, Recipe]]],
        tokenizer: PreTrainedTokenizerBase,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.plan, self.tokenizer, self.rank, self.world = plan, tokenizer, rank, world
        self.suffix: list[int] = tokenizer(self._chat("\n").split("\n")[1]).input_ids

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()  # a loader takes one batch of each of its workers in turn
        first, each = (worker.id, worker.num_workers) if worker else (0, 1)
        for step, recipe in islice(self.plan(), first, None, each):
            yield self.batch(step, recipe)

    def batch(self, step: int, recipe: Recipe) -> Batch:
        """Makes the batch of a step.

        Returns:
            `pixels_SC3HW` in bytes and `attributes_IN` of the images' patches; with questions also `ids_ST`,
            `labels_ST`, `segment_ST` and `position_ST` of the tokens, and the `targets` of the auxiliary losses.
        """
        recipe, cameras = recipe.of_step(step)
        scenes, packed = [], []
        for slot in range(self.rank, recipe.scenes, self.world):
            index = (step << 16) + slot if recipe.split == "train" else step * recipe.scenes + slot
            rng = SceneRandom(recipe.seed, 1 << 16, index)
            difficulty = rng.pick(list(recipe.difficulties), list(recipe.difficulties.values()))
            scenes.append(make_scene(recipe.split, (recipe.seed << 48) + index, difficulty))
            if recipe.questions:
                packed.append(self._pack(scenes[-1], recipe, cameras, rng))
        pixels = [[np.asarray(photograph(scene, camera, recipe.resolution)) for camera in cameras] for scene in scenes]
        drawn_SC3HW = torch.from_numpy(np.array(pixels)).permute(0, 1, 4, 2, 3)
        batch: Batch = {
            "pixels_SC3HW": _smaller(drawn_SC3HW, recipe) if recipe.shape else drawn_SC3HW,
            "attributes_IN": patch_attributes(scenes, recipe.grid, cameras),
        }
        if packed:
            asked = [
                (at, start, row.scene, question) for at, row in enumerate(packed) for start, question in row.questions
            ]
            batch |= _pad(packed, int(self.tokenizer.pad_token_id))
            batch["targets"] = question_targets(asked, recipe.grid, cameras)
        return batch

    def _chat(self, question: str, cameras: Sequence[str] = CAMERAS) -> str:
        message = {"role": "user", "content": multi_view_prompt(cameras, question)}
        return str(self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def _prefix(self, recipe: Recipe, cameras: Sequence[str]) -> list[int]:
        """Returns the token ids before the question."""
        tokens = math.prod(recipe.grid) + 1  # and a newline
        before = self._chat("\n", cameras).split("\n")[0]
        ids: list[int] = self.tokenizer(before.replace(IMAGE_MARKER, IMAGE_MARKER * tokens)).input_ids
        return ids

    def _pack(self, scene: Scene, recipe: Recipe, cameras: Sequence[str], rng: SceneRandom) -> PackedScene:
        prefix, end = self._prefix(recipe, cameras), int(self.tokenizer.eos_token_id)
        questions = _questions(scene, recipe, cameras, rng)
        is_image = [token == self.tokenizer.convert_tokens_to_ids(IMAGE_MARKER) for token in prefix]
        *places, after = positions(is_image, recipe.spacing, rng)
        packed = PackedScene(
            scene, [(token, IGNORED, PREFIX, place) for token, place in zip(prefix, places, strict=True)]
        )
        for segment, question in enumerate(questions):
            prompt = self.tokenizer(question.text).input_ids + self.suffix
            answer = [*self.tokenizer(question.reference).input_ids, end]
            labels = [IGNORED] * (len(prompt) - 1) + answer
            tokens = enumerate(zip(prompt + answer[:-1], labels, strict=True), after)
            packed.questions.append((len(packed.tokens) + len(prompt) - 1, question))
            packed.tokens += [(token, label, segment, place) for place, (token, label) in tokens]
        return packed


def _smaller(pixels_SC3HW: Tensor, recipe: Recipe) -> Tensor:
    """Returns the images in a step's shape."""
    height, width = (patches * recipe.patch for patches in recipe.grid)
    pixels_I3HW = interpolate(pixels_SC3HW.flatten(0, 1).float(), (height, width), mode="bicubic", antialias=True)
    return pixels_I3HW.round().clamp(0, 255).to(torch.uint8).view(*pixels_SC3HW.shape[:3], height, width)


def positions(is_image: Sequence[bool], spacing: Mapping[str, float], rng: SceneRandom) -> list[int]:
    """Draws position ids of a prefix, and of what comes next; ascending.

    Args:
        is_image: which tokens are visual.
        spacing: see `Recipe`.
        rng: source of all choices; nothing is drawn where the only spacing is `even`.
    """
    name = rng.pick(list(spacing), list(spacing.values())) if len(spacing) > 1 else next(iter(spacing))
    if name == "even":
        return list(range(len(is_image) + 1))
    low, high = SPACINGS[name]
    mean = min(low * (high / low) ** rng.uniform(0, 1), LONGEST / len(is_image))
    at, drawn = float(rng.integer(0, LONGEST // 4)), []
    for visual in is_image:
        drawn.append(int(at))
        at += rng.uniform(0, 2 * mean) if visual else 1.0
    return [*drawn, int(at) + 1]


def _questions(scene: Scene, recipe: Recipe, cameras: Sequence[str], rng: SceneRandom) -> list[Question]:
    if recipe.split != "train":
        return frame_questions(scene, recipe.version)
    kinds, weights = list(recipe.kinds), list(recipe.kinds.values())
    drawn: list[Question] = []
    for _ in range(recipe.questions):
        question = ask(scene, rng.pick(kinds, weights), rng)
        while not question.cameras <= set(cameras):
            question = ask(scene, rng.pick(kinds, weights), rng)
        drawn.append(question)
    return drawn


def _pad(packed: list[PackedScene], pad: int) -> dict[str, Tensor]:
    length = max(len(row.tokens) for row in packed)
    blank = (pad, IGNORED, PADDING, 0)
    tokens = torch.tensor([row.tokens + [blank] * (length - len(row.tokens)) for row in packed])
    return dict(zip(("ids_ST", "labels_ST", "segment_ST", "position_ST"), tokens.unbind(-1), strict=True))


def block_mask(segment_ST: Tensor, prefix: int) -> Tensor:
    """Returns the attention mask of the questions: True where a token attends to a position; bool [S, 1, Q, T].

    A question's tokens attend to the prefix and to the earlier tokens of the same question. Padding attends to itself
    and the prefix, so that no row of the mask is empty.

    Args:
        segment_ST: number of the question of each position, `PREFIX` or `PADDING`.
        prefix: number of positions of the prefix.
    """
    segment_SQ = segment_ST[:, prefix:]
    own = (segment_SQ[:, :, None] == segment_SQ[:, None]) & (segment_SQ[:, :, None] != PADDING)
    square = own.new_ones(own.shape[1:])
    own = own & square.tril() | torch.eye(len(square), dtype=torch.bool, device=own.device)
    seen = own.new_ones(*segment_SQ.shape, prefix)
    return torch.cat([seen, own], dim=2)[:, None]
