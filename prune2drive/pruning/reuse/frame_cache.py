"""The KV cache of prompts about frames.

Shape suffixes: B batch rows, G key-value heads, P positions in the cache, N new positions, E width of a head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
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
        self.layers = [GrowingLayer() for _ in range(layers)]  # type: ignore[no-untyped-call]  # of transformers

    def get_seq_length(self, layer_idx: int | None = None) -> int:
        """Returns the length of a layer; of the whole prompt where none is named, as `generate` asks."""
        return super().get_seq_length() + self.dropped if layer_idx is None else super().get_seq_length(layer_idx)
