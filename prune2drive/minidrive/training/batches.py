"""MiniDrive packed for training: many questions behind one visual prefix, the same batch for the same step.

Shape suffixes: S scenes, C cameras, I images, N tokens of an image, T positions of prefix and questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import PreTrainedTokenizerBase

from prune2drive.cameras import CAMERAS
from prune2drive.data.dataset import multi_view_prompt
from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import photograph
from prune2drive.minidrive.questions import KINDS_ASKED, LETTERS, Question, ask, frame_questions
from prune2drive.minidrive.scene import DIFFICULTIES, Dice, Scene, Thing, make_scene
from prune2drive.minidrive.vocabulary import COLOURS, COLUMNS, KINDS, LIGHTS, ROWS, STATUSES, TAG_NUMBERS
from prune2drive.sample import IMAGE_MARKER

IGNORED = -100
OUTSIDE = -1  # segment of padding
PREFIX = -2  # segment of the visual prefix, which every question sees
Batch = dict[str, Any]

_STATES = {**dict(zip(STATUSES, LETTERS, strict=True)), **{light: light for light in LIGHTS}}
NAMES: dict[str, tuple[str, ...]] = {  # what a patch can be called, in words of the vocabulary
    "thing": ("object", "no"),
    "kind": KINDS,
    "colour": COLOURS,
    "state": tuple(_STATES.values()),
    "number": tuple(f"<c{number}," for number in TAG_NUMBERS),
    "camera": CAMERAS,
    "column": tuple(f",{column}" for column in COLUMNS),
    "row": tuple(f",{row}>" for row in ROWS),
    "bend": ("left", "straight", "right"),  # of the road ahead
}


@dataclass(frozen=True)
class Recipe:
    """What a training batch holds.

    Args:
        questions: questions drawn for a scene of the train split (other splits have their own); 0 for pictures alone.
        difficulties: difficulty -> share of the scenes.
        kinds: kind of question -> weight.
        scenes: scenes a step, over all ranks.
        split: which scenes.
        resolution: pixels a side of a camera's image.
        patch: pixels a side of a visual token.
        seed: of all draws; the batch of a step depends on nothing else.
    """

    questions: int
    difficulties: Mapping[str, float]
    kinds: Mapping[str, float]
    scenes: int = 1
    split: str = "train"
    resolution: int = 112
    patch: int = 14
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what is not there.

        Raises:
            InputError: an unknown difficulty or kind of question, or no scene.
        """
        for name, known in (("difficulties", DIFFICULTIES), ("kinds", KINDS_ASKED)):
            if unknown := set(getattr(self, name)) - set(known):
                raise InputError(f"recipe.{name}: {min(unknown)} is none of {', '.join(known)}")
        if self.scenes < 1:
            raise InputError(f"recipe.scenes={self.scenes}: a step needs at least one scene")


@dataclass
class Row:
    """A scene's prefix and questions.

    Args:
        tokens: (id, label, segment, position) of each.
        questions: where the answer to each begins, and the question.
    """

    scene: Scene
    tokens: list[tuple[int, int, int, int]]
    questions: list[tuple[int, Question]] = field(default_factory=list)


class PackedMiniDrive(IterableDataset[Batch]):
    """One batch a step: this rank's share of the step's scenes.

    Args:
        plan: says, when iteration begins, which steps to make batches for, and how.
        tokenizer: with a chat template, and one token a word of `NAMES`.
        rank: which of the `world` processes this is.
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
        for step, recipe in self.plan():
            yield self.batch(step, recipe)

    def batch(self, step: int, recipe: Recipe) -> Batch:
        """The batch of a step: pixels_SC3HW in bytes, names_IN of the images' patches, and questions if any.

        Questions are ids, labels, segment and position _ST, and clues.
        """
        scenes, rows = [], []
        for slot in range(self.rank, recipe.scenes, self.world):
            index = (step << 16) + slot if recipe.split == "train" else step * recipe.scenes + slot
            dice = Dice(recipe.seed, 1 << 16, index)
            level = dice.pick(list(recipe.difficulties), list(recipe.difficulties.values()))
            scenes.append(make_scene(recipe.split, (recipe.seed << 48) + index, level))
            if recipe.questions:
                rows.append(self._pack(scenes[-1], recipe, dice))
        pixels = [[np.asarray(photograph(scene, camera, recipe.resolution)) for camera in CAMERAS] for scene in scenes]
        batch = {
            "pixels_SC3HW": torch.from_numpy(np.array(pixels)).permute(0, 1, 4, 2, 3),
            "names_IN": _names(scenes, recipe.resolution // recipe.patch),
        }
        grid = recipe.resolution // recipe.patch
        return batch | (_pad(rows, int(self.tokenizer.pad_token_id)) | {"clues": _clues(rows, grid)} if rows else {})

    def _chat(self, question: str) -> str:
        message = {"role": "user", "content": multi_view_prompt(CAMERAS, question)}
        return str(self.tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))

    def _prefix(self, recipe: Recipe) -> list[int]:
        tokens = (recipe.resolution // recipe.patch) ** 2 + 1  # and a newline
        before = self._chat("\n").split("\n")[0]
        ids: list[int] = self.tokenizer(before.replace(IMAGE_MARKER, IMAGE_MARKER * tokens)).input_ids
        return ids

    def _pack(self, scene: Scene, recipe: Recipe, dice: Dice) -> Row:
        """A label is what the token is followed by."""
        prefix, end = self._prefix(recipe), int(self.tokenizer.eos_token_id)
        row, start = Row(scene, [(token, IGNORED, PREFIX, place) for place, token in enumerate(prefix)]), len(prefix)
        for segment, question in enumerate(_questions(scene, recipe, dice)):
            asked = self.tokenizer(question.text).input_ids + self.suffix
            answer = [*self.tokenizer(question.answer).input_ids, end]
            labels = [IGNORED] * (len(asked) - 1) + answer
            tokens = zip(asked + answer[:-1], labels, strict=True)
            row.questions.append((len(row.tokens) + len(asked) - 1, question))
            row.tokens += [(token, label, segment, start + place) for place, (token, label) in enumerate(tokens)]
        return row


def _questions(scene: Scene, recipe: Recipe, dice: Dice) -> list[Question]:
    if recipe.split != "train":
        return frame_questions(scene)
    kinds, weights = list(recipe.kinds), list(recipe.kinds.values())
    return [ask(scene, dice.pick(kinds, weights), dice) for _ in range(recipe.questions)]


def _names(scenes: Sequence[Scene], grid: int) -> dict[str, Tensor]:
    """For each patch the index of its name in each group of `NAMES`, IGNORED where it has none; [images, N].

    All of an object's patches have all of its names: its centre's cell, too, and its rank.
    """
    names = {group: np.full((len(scenes), len(CAMERAS), grid * grid), IGNORED) for group in NAMES}
    names["thing"][:] = 1
    names["camera"][:] = np.arange(len(CAMERAS))[:, None]
    for at, scene in enumerate(scenes):
        names["bend"][at][0] = scene.bend + 1
        owner = scene.patches(grid)
        names["thing"][at][owner >= 0] = 0
        for index, thing in enumerate(scene.things):
            for group, name in _all(thing).items():
                names[group][at][owner == index] = name
    return {group: torch.from_numpy(indices).flatten(0, 1) for group, indices in names.items()}


def called(thing: Mapping[str, Any]) -> dict[str, int]:
    """Group of `NAMES` -> index of a name in it, for whatever is said of an object."""
    known = {name: value for name, value in thing.items() if value is not None}
    names = {}
    if "kind" in known:
        names["kind"] = KINDS.index(known["kind"])
    if "number" in known:
        names["number"] = known["number"] - 1
    if "camera" in known:
        names["camera"] = CAMERAS.index(known["camera"])
    if "cell" in known:
        names["column"], names["row"] = known["cell"]
    if "colour" in known:
        names["colour"] = COLOURS.index(known["colour"])
    if "status" in known:
        names["state"] = list(_STATES).index(known["status"])
    return names


def _all(thing: Thing) -> dict[str, int]:
    return called(vars(thing) | {"cell": thing.cell})


def _clues(rows: list[Row], grid: int) -> Batch:
    """What decides the answers of a batch's Q questions.

    Returns:
        `at` [2, Q], the scene and the position where each answer begins; `asked` and `subject`, the names [Q] of what
        it asks about and of the object that decides it, where that is one; `on` bool [Q, V], visual tokens of all
        objects that decide it.
    """
    found = [(row, scene, place, question) for scene, row in enumerate(rows) for place, question in row.questions]
    owner = {id(row): row.scene.patches(grid).reshape(-1) for row in rows}
    asked = [called(question.asked) for *_, question in found]
    subject = [_all(question.subjects[0]) if len(question.subjects) == 1 else {} for *_, question in found]
    on = [
        np.isin(owner[id(row)], [row.scene.things.index(thing) for thing in question.subjects])
        for row, *_, question in found
    ]
    return {
        "at": torch.tensor([(scene, place) for _, scene, place, _ in found]).T,
        "on": torch.from_numpy(np.array(on)),
        "asked": _tensors(asked),
        "subject": _tensors(subject),
    }


def _tensors(names: list[dict[str, int]]) -> dict[str, Tensor]:
    return {group: torch.tensor([each.get(group, IGNORED) for each in names]) for group in NAMES}


def _pad(rows: list[Row], pad: int) -> dict[str, Tensor]:
    length = max(len(row.tokens) for row in rows)
    blank = (pad, IGNORED, OUTSIDE, 0)
    packed = torch.tensor([row.tokens + [blank] * (length - len(row.tokens)) for row in rows])
    return dict(zip(("ids_ST", "labels_ST", "segment_ST", "position_ST"), packed.unbind(-1), strict=True))


def block_mask(segment_ST: Tensor, prefix: int) -> Tensor:
    """Which keys each question token sees: the prefix, and what precedes it in its own question; bool [S, 1, Q, T].

    Padding sees itself alone, so that no row is empty.
    """
    segment_SQ = segment_ST[:, prefix:]
    own = (segment_SQ[:, :, None] == segment_SQ[:, None]) & (segment_SQ[:, :, None] != OUTSIDE)
    square = own.new_ones(own.shape[1:])
    own = own & square.tril() | torch.eye(len(square), dtype=torch.bool, device=own.device)
    seen = own.new_ones(*segment_SQ.shape, prefix)
    return torch.cat([seen, own], dim=2)[:, None]
