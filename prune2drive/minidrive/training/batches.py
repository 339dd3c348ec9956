"""MiniDrive packed for training: many questions after one visual prefix, the same batch for the same step.

Shape suffixes: S scenes, C views, I images, H height, W width, N tokens of an image, T positions of prefix and
questions, Q positions after the prefix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from prune2drive.cameras import CAMERAS, camera_of, time_of
from prune2drive.data.dataset import multi_view_prompt
from prune2drive.minidrive.clip import Clip, make_clip
from prune2drive.minidrive.clip_questions import ask_about_clip, clip_questions
from prune2drive.minidrive.dataset import photograph
from prune2drive.minidrive.questions import Question, ask, frame_questions
from prune2drive.minidrive.scene_random import SceneRandom
from prune2drive.minidrive.training.recipe import SPACINGS, Recipe
from prune2drive.minidrive.training.targets import (
    IGNORED,
    change_targets,
    first_sight,
    patch_attributes,
    question_targets,
)
from prune2drive.sample import IMAGE_MARKER

PADDING = -1  # segment of padding
PREFIX = -2  # segment of the visual prefix, which every question attends to
LONGEST = 6000  # about the largest position id
TRIES = 200  # draws of a question that cameras left out might answer
Batch = dict[str, Any]


@dataclass
class PackedScene:
    """Holds the tokens of a scene's prefix and questions.

    Args:
        clip: the scene, at one time or at several.
        tokens: (id, label, segment, position) of every token; the label is the next token's id in an answer.
        questions: position where the answer begins, and the question.
    """

    clip: Clip
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
            `pixels_SC3HW` in bytes and `attributes_IN` of the images' patches; with questions or clips also `ids_ST`,
            `labels_ST`, `segment_ST` and `position_ST` of the tokens; with questions the `targets` of the auxiliary
            losses, of clips `change` and `first_sight`.
        """
        recipe, views = recipe.of_step(step)
        clips, packed = [], []
        for slot in range(self.rank, recipe.scenes, self.world):
            index = (step << 16) + slot if recipe.split == "train" else step * recipe.scenes + slot
            rng = SceneRandom(recipe.seed, 1 << 16, index)
            difficulty = rng.pick(list(recipe.difficulties), list(recipe.difficulties.values()))
            clips.append(make_clip(recipe.split, (recipe.seed << 48) + index, difficulty, recipe.times))
            if recipe.questions or recipe.times > 1:
                packed.append(self._pack(clips[-1], recipe, views, rng))
        pixels = [[_pixels(clip, view, recipe.resolution) for view in views] for clip in clips]
        drawn_SC3HW = torch.from_numpy(np.array(pixels)).permute(0, 1, 4, 2, 3)
        batch: Batch = {
            "pixels_SC3HW": _smaller(drawn_SC3HW, recipe) if recipe.shape else drawn_SC3HW,
            "attributes_IN": patch_attributes(clips, recipe.grid, views),
        }
        if packed:
            batch |= _pad(packed, int(self.tokenizer.pad_token_id))
        if recipe.times > 1:
            batch["change"] = change_targets(clips, recipe.grid, views)
            batch["first_sight"] = first_sight(clips, recipe.grid, views)
        if recipe.questions:
            asked = [
                (at, start, row.clip, question) for at, row in enumerate(packed) for start, question in row.questions
            ]
            batch["targets"] = question_targets(asked, recipe.grid, views)
        return batch

    def _chat(self, question: str, views: Sequence[str] = CAMERAS) -> str:
        message = {"role": "user", "content": multi_view_prompt(views, question)}
        return str(self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def _prefix(self, recipe: Recipe, views: Sequence[str]) -> list[int]:
        """Returns the token ids before the question."""
        tokens = math.prod(recipe.grid) + 1  # and a newline
        before = self._chat("\n", views).split("\n")[0]
        ids: list[int] = self.tokenizer(before.replace(IMAGE_MARKER, IMAGE_MARKER * tokens)).input_ids
        return ids

    def _pack(self, clip: Clip, recipe: Recipe, views: Sequence[str], rng: SceneRandom) -> PackedScene:
        prefix, end = self._prefix(recipe, views), int(self.tokenizer.eos_token_id)
        questions = _questions(clip, recipe, set(map(camera_of, views)), rng)
        is_image = [token == self.tokenizer.convert_tokens_to_ids(IMAGE_MARKER) for token in prefix]
        *places, after = positions(is_image, recipe.spacing, rng)
        packed = PackedScene(
            clip, [(token, IGNORED, PREFIX, place) for token, place in zip(prefix, places, strict=True)]
        )
        for segment, question in enumerate(questions):
            prompt = self.tokenizer(question.text).input_ids + self.suffix
            answer = [*self.tokenizer(question.reference).input_ids, end]
            labels = [IGNORED] * (len(prompt) - 1) + answer
            tokens = enumerate(zip(prompt + answer[:-1], labels, strict=True), after)
            packed.questions.append((len(packed.tokens) + len(prompt) - 1, question))
            packed.tokens += [(token, label, segment, place) for place, (token, label) in tokens]
        return packed


def _pixels(clip: Clip, view: str, resolution: int) -> np.ndarray:
    return np.asarray(photograph(clip.scenes[time_of(view) or 0], camera_of(view), resolution))


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


def _questions(clip: Clip, recipe: Recipe, cameras: Set[str], rng: SceneRandom) -> list[Question]:
    """Draws questions that the shown cameras answer, of a kind that any camera does where the recipe's kinds fail."""
    single = recipe.times == 1
    if recipe.split != "train":
        return frame_questions(clip.now, recipe.version) if single else clip_questions(clip)
    kinds, always = (recipe.kinds, "exist") if single else (recipe.clip_kinds, "first")
    drawn: list[Question] = []
    for _ in range(recipe.questions):
        for tried in count():
            kind = rng.pick(list(kinds), list(kinds.values())) if tried < TRIES else always
            question = ask(clip.now, kind, rng) if single else ask_about_clip(clip, kind, rng)
            if question.cameras <= cameras:
                break
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
