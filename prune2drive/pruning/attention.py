"""One row of attention, recomputed, so that every layer can stay on its fast kernel.

Shape suffixes: B batch rows, P prompt positions, H query heads, G key-value heads, E head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def last_row_attention(
    layer: Any,
    hidden_BPD: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    mask_BP: Tensor | None,
    keys_BGPE: Tensor | None = None,
) -> Tensor:
    """Attention that the last position pays to every position in a decoder layer, averaged over heads.

    Equals the last row of that layer's eager attention: projections, query and key norms where the
    layer has them, rotary embedding, softmax in float32 over all unmasked positions.

    Args:
        layer: a decoder layer of the Llama kind (`input_layernorm`, `self_attn.{q,k}_proj`).
        hidden_BPD: the layer's input.
        position_embeddings: its cosines and sines, [B or 1, P, E].
        mask_BP: True at positions that may be seen; None where all may.
        keys_BGPE: the layer's rotated keys, where its cache holds them; else they are computed again.

    Returns:
        Weights [B, P] in float32; each row sums to 1.
    """
    attention = layer.self_attn
    cos, sin = position_embeddings
    last_B1D = layer.input_layernorm(hidden_BPD[:, -1:])
    query_B1HE = _rotated_heads(attention, "q", last_B1D, cos[:, -1:], sin[:, -1:])
    if keys_BGPE is None:
        keys_BGPE = _rotated_heads(attention, "k", layer.input_layernorm(hidden_BPD), cos, sin).transpose(1, 2)
    batch, _, heads, width = query_B1HE.shape
    query_BGRE = query_B1HE.view(batch, keys_BGPE.shape[1], -1, width)
    logits_BGRP = query_BGRE @ keys_BGPE.transpose(2, 3) * attention.scaling
    if mask_BP is not None:
        logits_BGRP = logits_BGRP.masked_fill(~mask_BP[:, None, None], -torch.inf)
    weights_BGRP = logits_BGRP.softmax(dim=-1, dtype=torch.float32)
    return weights_BGRP.reshape(batch, heads, -1).mean(dim=1)


def _rotated_heads(attention: Any, name: str, normed_BPD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries or keys of some positions, [B, P, heads, E]."""
    states = getattr(attention, f"{name}_proj")(normed_BPD)
    states = states.view(*normed_BPD.shape[:2], -1, attention.head_dim)
    norm = getattr(attention, f"{name}_norm", None)
    if norm is not None:
        states = norm(states)
    half = attention.head_dim // 2
    turned = torch.cat([-states[..., half:], states[..., :half]], dim=-1)
    return states * cos[:, :, None] + turned * sin[:, :, None]
