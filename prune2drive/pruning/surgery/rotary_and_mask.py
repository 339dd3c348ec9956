"""Rotary embeddings and attention masks of the kept length, for the layers after a cut.

Shape suffixes: B batch rows, P prompt positions (padded), K kept positions, A axes of rotary positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.families import decoder_of
from prune2drive.pruning.surgery.cut import Cut, gather
from prune2drive.pruning.surgery.forward import ForwardPass


@dataclass(frozen=True)
class RotaryAndMask:
    """Makes what layers after a cut are given instead of the full prompt's, once a forward pass and cut.

    Args:
        decoder: the decoder, which computes cosines and sines of position ids.
        positions: `keep` leaves kept tokens their position ids, `renumber` closes the gaps.
    """

    decoder: Any
    positions: str

    def rope_after(
        self, cut: Cut, step: ForwardPass, hidden_BKD: Tensor, given: tuple[Tensor, Tensor], prompt: int
    ) -> tuple[Tensor, Tensor] | None:
        """Returns the cosines and sines of kept positions; None where those given are right.

        Args:
            cut: the last cut before the layer.
            step: the forward pass.
            hidden_BKD: what enters the layer.
            given: cosines and sines of the full prompt's positions.
            prompt: the full prompt's length P.
        """
        device = hidden_BKD.device
        if cut.layer not in step.rotary:
            rows, width = hidden_BKD.shape[:2]
            if step.is_prefill and self.positions == "keep":
                cos, sin = (gather(part.expand(rows, -1, -1), cut.kept_BK) for part in given)
                step.rotary[cut.layer] = cos, sin
            elif step.is_prefill:
                step.rotary[cut.layer] = self._rope(hidden_BKD, renumber(cut, self._ids(step, rows, prompt, device)))
            elif self.positions == "renumber":
                ids_ABP = self._ids(step, rows, width, device) - cut.shift_B.to(device)[:, None]
                step.rotary[cut.layer] = self._rope(hidden_BKD, ids_ABP)
        made = step.rotary.get(cut.layer)
        return None if made is None else (made[0].to(device), made[1].to(device))

    def mask_after(self, cut: Cut, step: ForwardPass, hidden_BKD: Tensor, cache: Any, layer: int, prompt: int) -> Any:
        """Returns a layer's attention mask in the form its attention wants; None where causal attention needs none.

        Args:
            cut: the last cut before the layer.
            step: the forward pass.
            hidden_BKD: what enters the layer.
            cache: the KV cache; None without one.
            layer: the layer's index.
            prompt: the full prompt's length P.
        """
        if cut.layer not in step.layer_mask:
            from transformers.masking_utils import create_causal_mask  # slow to import: it takes torch._dynamo along

            past = 0 if step.is_prefill else cache.layers[layer].get_seq_length()
            later = past + hidden_BKD.shape[1] - cut.length
            padding = padding_mask(cut, step.mask, prompt, later, len(hidden_BKD))
            config = self.decoder.config
            mask: Any = create_causal_mask(config, hidden_BKD, padding, cache, position_ids=None, layer_idx=layer)
            if cut.log_sizes_BK is not None:
                mask = proportional_mask(cut.log_sizes_BK, mask, hidden_BKD.shape[1], later, hidden_BKD.dtype)
            step.layer_mask[cut.layer] = mask
        mask = step.layer_mask[cut.layer]
        return mask.to(hidden_BKD.device) if isinstance(mask, Tensor) else mask

    def _ids(self, step: ForwardPass, rows: int, width: int, device: torch.device) -> Tensor:
        """Returns the original position ids [A, B, width]; three axes for multimodal rotary embeddings, else one."""
        ids = step.position_ids
        ids = step.past + torch.arange(width)[None] if ids is None else ids
        ids = (ids[None] if ids.ndim == 2 else ids[-3:]).to(device)
        return ids.expand(decoder_of(self.decoder.config).rope_axes, rows, -1)

    def _rope(self, hidden_BKD: Tensor, ids_ABP: Tensor) -> tuple[Tensor, Tensor]:
        rope: tuple[Tensor, Tensor] = self.decoder.rotary_emb(hidden_BKD, ids_ABP if len(ids_ABP) > 1 else ids_ABP[0])
        return rope


def renumber(cut: Cut, ids_ABP: Tensor) -> Tensor:
    """Closes the gaps in position ids: each row's ids in use become 0, 1, 2, ... on all axes together; [A, B, K].

    The cut notes by how much each row's last id fell, for the positions of generated tokens.
    """
    ids_ABK = ids_ABP.gather(2, cut.kept_BK.expand(len(ids_ABP), -1, -1))
    for row, real_K in enumerate(cut.real_BK):
        used, ranks = ids_ABK[:, row, real_K].unique(return_inverse=True)
        cut.shift_B[row] = used[-1] - (len(used) - 1)
        ids_ABK[:, row, real_K] = ranks
    return ids_ABK


def padding_mask(cut: Cut, full: Tensor | None, prompt: int, later: int, rows: int) -> Tensor | None:
    """Returns the padding mask of the kept prompt and `later` tokens after it; None where nothing is masked.

    Args:
        cut: the cut.
        full: padding mask of the full length, [B, P + later]; None where nothing is masked.
        prompt: the full prompt's length P.
        later: tokens after the prompt.
        rows: batch rows.
    """
    if full is None and not cut.is_ragged:
        return None
    behind = cut.real_BK.new_ones(rows, later) if full is None else full[:, prompt:].to(cut.real_BK)
    return torch.cat([cut.real_BK, behind], dim=1)


def proportional_mask(
    log_sizes_BK: Tensor, mask: Tensor | None, queries: int, later: int, dtype: torch.dtype
) -> Tensor:
    """Adds the logarithm of each key's size to an attention mask: proportional attention (PACT, arXiv 2504.08966).

    Args:
        log_sizes_BK: logarithm of the number of tokens that each kept position stands for.
        mask: the layer's mask: None (causal), True where attention may go, or additive.
        queries: positions that enter the layer.
        later: tokens after the prompt in the KV cache, of size one.
        dtype: float type of the layer's states.

    Returns:
        An additive mask [B, 1, queries, K + later].
    """
    log_sizes_BK = nn.functional.pad(log_sizes_BK, (0, later))
    length = log_sizes_BK.shape[1]
    if mask is None:
        place = torch.arange(length, device=log_sizes_BK.device)
        mask = (place <= place[length - queries :, None])[None, None]
    if mask.dtype == torch.bool:
        lowest = torch.finfo(dtype).min
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, lowest)
    return mask + log_sizes_BK[:, None, None].to(mask)
