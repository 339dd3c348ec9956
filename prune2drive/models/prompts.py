"""Prompts as a model reads them, and its answers.

Shape suffixes: B batch rows, P prompt positions (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.token_map import TokenMap


@dataclass(frozen=True)
class Prompts:
    """A batch as the model reads it.

    Args:
        inputs: keyword arguments of `generate`.
        token_maps: where each prompt's visual tokens lie.
    """

    inputs: dict[str, Any]
    token_maps: tuple[TokenMap, ...]

    def to(self, device: torch.device | str) -> Prompts:
        moved = {name: value.to(device) for name, value in self.inputs.items()}
        return Prompts(moved, self.token_maps)

    def without_images(self) -> Prompts:
        """The same text and sizes without pixels, for a model that has seen them."""
        return Prompts({name: value for name, value in self.inputs.items() if "pixel" not in name}, self.token_maps)

    def rows(self, places: Sequence[int]) -> Prompts:
        """Some of the prompts; as many images belong to each."""
        batch = len(self.token_maps)
        inputs = {
            name: value.unflatten(0, (batch, -1))[list(places)].flatten(0, 1) for name, value in self.inputs.items()
        }
        return Prompts(inputs, tuple(self.token_maps[place] for place in places))

    def followed_by(self, texts: Sequence[Sequence[int]], pad: int) -> Prompts:
        """Each prompt with token ids behind it, padded on the left with `pad`."""
        inputs = dict(self.inputs)
        for name in self._of_positions:
            rows = [
                torch.cat([own_P, own_P.new_tensor(_behind(name, ids))])
                for own_P, ids in zip(self._own(name), texts, strict=True)
            ]
            inputs[name] = _padded(name, rows, pad)
        maps = (token_map.followed_by(len(ids)) for token_map, ids in zip(self.token_maps, texts, strict=True))
        return Prompts(inputs, tuple(maps))

    @classmethod
    def joined(cls, batches: Sequence[Prompts], pad: int) -> Prompts:
        """One batch of several, padded on the left with `pad`."""
        inputs = {name: torch.cat([batch.inputs[name] for batch in batches]) for name in batches[0]._of_images}
        for name in batches[0]._of_positions:
            inputs[name] = _padded(name, [own_P for batch in batches for own_P in batch._own(name)], pad)
        return cls(inputs, tuple(token_map for batch in batches for token_map in batch.token_maps))

    @property
    def own_ids(self) -> list[Tensor]:
        """Each prompt's input ids, without padding."""
        return self._own("input_ids")

    @property
    def _of_positions(self) -> list[str]:
        """The inputs that say something of each position, [B, P]."""
        return [name for name, value in self.inputs.items() if value.shape == self.inputs["input_ids"].shape]

    @property
    def _of_images(self) -> list[str]:
        return [name for name in self.inputs if name not in self._of_positions]

    def _own(self, name: str) -> list[Tensor]:
        """Each prompt's part of an input, without padding."""
        return [row_P[len(row_P) - length :] for row_P, length in zip(self.inputs[name], self.lengths, strict=True)]

    @property
    def lengths(self) -> list[int]:
        """Positions of each prompt, without padding."""
        return [token_map.length for token_map in self.token_maps]


@dataclass(frozen=True)
class Answer:
    """What the model generated for one prompt.

    Args:
        ids: generated tokens, the end token included.
    """

    text: str
    ids: tuple[int, ...]

    @property
    def new_tokens(self) -> int:
        return len(self.ids)


def _behind(name: str, ids: Sequence[int]) -> list[int]:
    """What a model input says of text behind the prompt."""
    return {"input_ids": list(ids), "attention_mask": [1] * len(ids)}.get(name, [0] * len(ids))


def _padded(name: str, rows: list[Tensor], pad: int) -> Tensor:
    filler = pad if name == "input_ids" else 0
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler, padding_side="left")
