"""Prompts as a model reads them, and its answers.

Shape suffixes: B batch rows, P prompt positions (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.token_map import TokenMap


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts as the model reads it.

    Args:
        inputs: keyword arguments of `generate`.
        token_maps: where the visual tokens of each prompt lie.
        pixel_inputs: names of the inputs that hold pixels.
    """

    inputs: dict[str, Any]
    token_maps: tuple[TokenMap, ...]
    pixel_inputs: tuple[str, ...] = ("pixel_values",)

    def to(self, device: torch.device | str) -> Prompts:
        """Returns the batch with its inputs on a device."""
        return replace(self, inputs={name: value.to(device) for name, value in self.inputs.items()})

    def without_images(self) -> Prompts:
        """Returns the batch without pixels, for a model whose image features are known."""
        return replace(self, inputs={name: self.inputs[name] for name in self.inputs if name not in self.pixel_inputs})

    def rows(self, places: Sequence[int]) -> Prompts:
        """Returns some of the prompts, which must have the same number of images.

        Args:
            places: rows of the batch.
        """
        batch = len(self.token_maps)
        inputs = {
            name: value.unflatten(0, (batch, -1))[list(places)].flatten(0, 1) for name, value in self.inputs.items()
        }
        return replace(self, inputs=inputs, token_maps=tuple(self.token_maps[place] for place in places))

    def followed_by(self, texts: Sequence[Sequence[int]], pad: int) -> Prompts:
        """Returns the batch with a text after each prompt, padded on the left.

        Args:
            texts: token ids to append to each prompt.
            pad: token id of the padding.
        """
        inputs = dict(self.inputs)
        for name in self._position_inputs:
            rows = [
                torch.cat([own_P, own_P.new_tensor(_of_text(name, ids))])
                for own_P, ids in zip(self._unpadded(name), texts, strict=True)
            ]
            inputs[name] = _padded(name, rows, pad)
        maps = (_extended(token_map, len(ids)) for token_map, ids in zip(self.token_maps, texts, strict=True))
        return replace(self, inputs=inputs, token_maps=tuple(maps))

    @classmethod
    def joined(cls, batches: Sequence[Prompts], pad: int) -> Prompts:
        """Returns several batches as one, padded on the left.

        Args:
            batches: batches of prompts with the same inputs.
            pad: token id of the padding.
        """
        first = batches[0]
        inputs = {
            name: torch.cat([batch.inputs[name] for batch in batches])
            for name in first.inputs
            if name not in first._position_inputs
        }
        for name in first._position_inputs:
            inputs[name] = _padded(name, [own_P for batch in batches for own_P in batch._unpadded(name)], pad)
        return replace(first, inputs=inputs, token_maps=tuple(one for batch in batches for one in batch.token_maps))

    @property
    def own_ids(self) -> list[Tensor]:
        """Token ids of each prompt, without padding."""
        return self._unpadded("input_ids")

    @property
    def lengths(self) -> list[int]:
        """Number of positions of each prompt, without padding."""
        return [token_map.length for token_map in self.token_maps]

    @property
    def _position_inputs(self) -> list[str]:
        """Names of the inputs that have one value for each position, [B, P]."""
        return [name for name, value in self.inputs.items() if value.shape == self.inputs["input_ids"].shape]

    def _unpadded(self, name: str) -> list[Tensor]:
        """Returns the rows of an input without padding."""
        return [row_P[len(row_P) - length :] for row_P, length in zip(self.inputs[name], self.lengths, strict=True)]


@dataclass(frozen=True)
class Answer:
    """What the model generated for one prompt.

    Args:
        text: the answer in words.
        ids: generated tokens, the end token included.
    """

    text: str
    ids: tuple[int, ...]

    @property
    def new_tokens(self) -> int:
        """Number of generated tokens, the end token included."""
        return len(self.ids)


def _of_text(name: str, ids: Sequence[int]) -> list[int]:
    """Returns the values of a model input at positions of text.

    Args:
        name: the input's name.
        ids: token ids of the text.
    """
    return {"input_ids": list(ids), "attention_mask": [1] * len(ids)}.get(name, [0] * len(ids))


def _padded(name: str, rows: list[Tensor], pad: int) -> Tensor:
    """Pads the rows of a model input on the left; [B, P]."""
    filler = pad if name == "input_ids" else 0
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler, padding_side="left")


def _extended(token_map: TokenMap, count: int) -> TokenMap:
    """Returns the map of a prompt that is followed by `count` positions of text."""
    parts = (
        nn.functional.pad(part_P, (0, count), value=-1)
        for part_P in (token_map.view_P, token_map.row_P, token_map.col_P)
    )
    longer = TokenMap(token_map.views, *parts)
    known = {name: value for name, value in vars(token_map).items() if name not in vars(longer)}
    vars(longer).update(known)  # positions and boxes of the visual tokens, which text after them does not move
    return longer
