"""A decoder layer as methods look at it: rows of its attention, its queries and keys, computed when asked for.

Every layer can so stay on its fast kernel.

Shape suffixes: B batch rows, P prompt positions, Q query positions, H query heads, G key-value heads, E head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerView:
    """A decoder layer of the Llama kind (`input_layernorm`, `self_attn.{q,k}_proj`) and what enters it.

    Args:
        module: the decoder layer.
        hidden_BPD: hidden states that enter the layer.
        rotary: cosines and sines of the positions, [B or 1, P, E].
        mask_BP: padding mask, True at real positions; None where there is no padding.
        cached: gives the layer's rotated keys [B, G, P, E] from the KV cache, or None to have them computed.
    """

    module: Any
    hidden_BPD: Tensor
    rotary: tuple[Tensor, Tensor]
    mask_BP: Tensor | None = None
    cached: Callable[[], Tensor | None] = lambda: None

    def last_row(self) -> Tensor:
        """Computes the attention of the last position to every position, averaged over heads; float32 [B, P].

        Equals the last row of the layer's eager attention: projections, query and key norms where the layer has
        them, rotary embedding, softmax in float32 over all unmasked positions.
        """
        query_BHQE = self.queries(slice(-1, None))
        seen = None if self.mask_BP is None else self.mask_BP[:, None, None]
        return self._weights(query_BHQE, self.keys(), seen).mean(dim=1)[:, 0]

    def rows(self, row: int, at_Q: Tensor) -> Tensor:
        """Computes the attention of some positions of one batch row to every position; float32 [H, Q, P].

        Args:
            row: batch row.
            at_Q: query positions.
        """
        at_Q = at_Q.to(self.hidden_BPD.device)
        query_1HQE = self.queries(at_Q, row)
        positions_P = torch.arange(self.hidden_BPD.shape[1], device=at_Q.device)
        seen_QP = positions_P <= at_Q[:, None]
        if self.mask_BP is not None:
            seen_QP = seen_QP & self.mask_BP[row].to(at_Q.device)
        return self._weights(query_1HQE, self.keys()[row : row + 1], seen_QP[None, None])[0]

    def queries(self, at: Any = slice(None), row: int | None = None, rotated: bool = True) -> Tensor:
        """Computes the queries of some positions, [B, H, Q, E], or of one batch row, [1, H, Q, E]."""
        rows = slice(None) if row is None else slice(row, row + 1)
        states = self._heads("q", self.hidden_BPD[rows][:, at])
        return (self._rotate(states, rows, at) if rotated else states).transpose(1, 2)

    def keys(self, rotated: bool = True) -> Tensor:
        """Returns the keys of all positions, [B, G, P, E], computed once."""
        if rotated and (held := self.cached()) is not None:
            return held
        return self._rotated_keys if rotated else self._keys.transpose(1, 2)

    @cached_property
    def _rotated_keys(self) -> Tensor:
        return self._rotate(self._keys).transpose(1, 2)

    @cached_property
    def _keys(self) -> Tensor:
        return self._heads("k", self.hidden_BPD)

    def _heads(self, name: str, states_BQD: Tensor) -> Tensor:
        """Applies the layer's projection and norm to a part of its input; [B, Q, H or G, E]."""
        attention = self.module.self_attn
        states = getattr(attention, f"{name}_proj")(self.module.input_layernorm(states_BQD))
        states = states.unflatten(-1, (-1, attention.head_dim))
        norm = getattr(attention, f"{name}_norm", None)
        heads: Tensor = states if norm is None else norm(states)
        return heads

    def _rotate(self, states_BQHE: Tensor, rows: slice = slice(None), at: Any = slice(None)) -> Tensor:
        cos, sin = (part[rows if len(part) > 1 else slice(None)][:, at, None] for part in self.rotary)
        half = states_BQHE.shape[-1] // 2
        turned = torch.cat([-states_BQHE[..., half:], states_BQHE[..., :half]], dim=-1)
        return states_BQHE * cos + turned * sin

    def _weights(self, query_BHQE: Tensor, keys_BGPE: Tensor, seen: Tensor | None) -> Tensor:
        """Returns attention weights: the softmax of scaled products over unmasked positions, [B, H, Q, P]."""
        batch, heads, count, width = query_BHQE.shape
        query_BGRE = query_BHQE.reshape(batch, keys_BGPE.shape[1], -1, width)
        logits: Tensor = (query_BGRE @ keys_BGPE.transpose(2, 3)).reshape(batch, heads, count, -1)
        logits = logits * self.module.self_attn.scaling
        if seen is not None:
            logits = logits.masked_fill(~seen.to(logits.device), -torch.inf)
        return logits.softmax(dim=-1, dtype=torch.float32)
