"""The KV cache of prompts about frames.

Shape suffixes: B batch rows, F rows before, G key-value heads, P positions in the cache, N new positions, E width of a
head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # positions that are made room for ahead


class GrowingLayer(DynamicLayer):
    """A layer of a KV cache that writes new positions into room made ahead, instead of copying the whole layer."""

    keys: Tensor
    values: Tensor
    _buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends keys and values [B, G, N, E]; returns all of them, [B, G, P + N, E]."""
        length = self.get_seq_length()
        if length == 0:
            return super().update(key_states, value_states, *args, **kwargs)
        stop, buffers = length + key_states.shape[-2], self._buffers
        if buffers is None or self.keys.data_ptr() != buffers[0].data_ptr() or stop > buffers[0].shape[-2]:
            buffers = self._buffers = _with_room(self.keys, stop + ROOM), _with_room(self.values, stop + ROOM)
        for buffer, new in zip(buffers, (key_states, value_states), strict=True):
            buffer[..., length:stop, :] = new
        self.keys, self.values = (buffer[..., :stop, :] for buffer in buffers)
        return self.keys, self.values

    def rearrange(self, row_B: Tensor, at_BP: Tensor) -> None:
        """Makes new rows of positions of the present ones.

        Args:
            row_B: the present row that each new one is made of.
            at_BP: which of its positions.
        """
        buffers = self._buffers = _rearranged(self.keys, row_B, at_BP), _rearranged(self.values, row_B, at_BP)
        self.keys, self.values = (buffer[..., : at_BP.shape[1], :] for buffer in buffers)


def _rearranged(states_FGPE: Tensor, row_B: Tensor, at_BP: Tensor) -> Tensor:
    """Returns new rows with room ahead, copied once."""
    _, heads, positions, width = states_FGPE.shape
    head_BG = row_B[:, None] * heads + torch.arange(heads, device=row_B.device)
    at_BGP = head_BG[..., None] * positions + nn.functional.pad(at_BP, (0, ROOM))[:, None]
    taken = states_FGPE.reshape(-1, width).index_select(0, at_BGP.flatten().to(states_FGPE.device))
    return taken.view(*at_BGP.shape, width)


def _with_room(states_BGPE: Tensor, room: int) -> Tensor:
    buffer = states_BGPE.new_empty(*states_BGPE.shape[:2], room, states_BGPE.shape[-1])
    buffer[..., : states_BGPE.shape[-2], :] = states_BGPE
    return buffer


class FrameCache(DynamicCache):
    """A KV cache that counts the whole prompt, though a cut before the first layer left only the kept part in it.

    Args:
        layers: number of decoder layers.

    Attributes:
        dropped: positions of the prompt that the first layer does not hold.
    """

    dropped = 0

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.growing = [GrowingLayer() for _ in range(layers)]  # type: ignore[no-untyped-call]  # of transformers
        self.layers = list(self.growing)

    def rearrange(self, row_B: Tensor, places: Sequence[Tensor]) -> None:
        """Makes new rows of positions of the present ones.

        Args:
            row_B: the present row that each new one is made of.
            places: which of its positions each layer's new rows take, [B, P].
        """
        for layer, at_BP in zip(self.growing, places, strict=True):
            layer.rearrange(row_B, at_BP)

    def get_seq_length(self, layer_idx: int | None = None) -> int:
        """Returns the length of a layer; of the whole prompt where none is named, as `generate` asks."""
        return super().get_seq_length() + self.dropped if layer_idx is None else super().get_seq_length(layer_idx)
