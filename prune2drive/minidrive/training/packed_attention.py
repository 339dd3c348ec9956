"""Attention of one visual prefix and many questions behind it, packed into one sequence.

Shape suffixes: S scenes, H heads, T positions, Q positions behind the prefix, D channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

PACKED = "packed"  # the name by which a model asks for `packed_attention`


@dataclass
class Watch:
    """Remembers what one layer attends with, when passed to the model as `watch`.

    Args:
        layer: index of the decoder layer to watch.
    """

    layer: int
    query_SHTD: Tensor | None = None
    key_SHTD: Tensor | None = None
    mask_S1QT: Tensor | None = None
    scale: float = 1.0

    def scores(self, scene: int, places: Tensor) -> Tensor:
        """Masked attention logits of some positions behind a scene's prefix, in the second half of the heads.

        Args:
            scene: index in the batch.
            places: [P], positions in the sequence.

        Returns:
            [H / 2, P, T].
        """
        assert self.query_SHTD is not None and self.key_SHTD is not None and self.mask_S1QT is not None
        prefix = self.query_SHTD.shape[2] - self.mask_S1QT.shape[2]
        half = self.query_SHTD.shape[1] // 2
        query, key = self.query_SHTD[scene, half:, places].float(), self.key_SHTD[scene, half:].float()
        return query @ key.transpose(-1, -2) * self.scale + self.mask_S1QT[scene, :, places - prefix].float()


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    watch: Watch | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention of [S, H, T, D]: plainly causal in the prefix; the questions have their mask [S, 1, Q, T]."""
    del dropout, unused
    if watch and watch.layer == module.layer_idx:
        watch.query_SHTD, watch.key_SHTD, watch.mask_S1QT = query, key, attention_mask
        watch.scale = scaling or query.shape[-1] ** -0.5
    prefix = query.shape[2] - attention_mask.shape[2]
    early = F.scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True, scale=scaling
    )
    if not attention_mask.shape[2]:
        return early.transpose(1, 2), None
    late = F.scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=attention_mask, scale=scaling)
    return torch.cat([early, late], dim=2).transpose(1, 2), None


AttentionInterface.register(PACKED, packed_attention)
