"""Attention of one visual prefix and the questions after it, packed into one sequence.

Shape suffixes: S scenes, H heads, T positions, Q positions after the prefix, P probed positions, D channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "packed"


@dataclass
class AttentionProbe:
    """Captures queries, keys and mask of one layer when passed to the model among its `probes`.

    Args:
        layer: index of the decoder layer.
    """

    layer: int
    query_SHTD: Tensor | None = None
    key_SHTD: Tensor | None = None
    mask_S1QT: Tensor | None = None
    scale: float = 1.0

    def logits(self, scene: int, positions_P: Tensor) -> Tensor:
        """Returns the masked attention logits [H / 2, P, T] of some queries, in the second half of the heads.

        Args:
            scene: index of the scene in the batch.
            positions_P: positions of the queries.
        """
        assert self.query_SHTD is not None and self.key_SHTD is not None and self.mask_S1QT is not None
        _, heads, length, _ = self.query_SHTD.shape
        prefix = length - self.mask_S1QT.shape[2]
        query, key = (each[scene, heads // 2 :].float() for each in (self.query_SHTD, self.key_SHTD))
        later = torch.arange(length, device=positions_P.device) > positions_P[:, None]
        mask_PT = torch.zeros(later.shape, device=later.device).masked_fill_(later, torch.finfo(torch.float32).min)
        asks = positions_P >= prefix
        mask_PT[asks] = self.mask_S1QT[scene, 0, positions_P[asks] - prefix].float()
        return query[:, positions_P] @ key.transpose(-1, -2) * self.scale + mask_PT


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    probes: Sequence[AttentionProbe] = (),
    **unused: Any,
) -> tuple[Tensor, None]:
    """Computes attention that is causal within the prefix and masked for the questions.

    Args:
        module: the attention module of a decoder layer.
        query: [S, H, T, D].
        key: [S, H, T, D].
        value: [S, H, T, D].
        attention_mask: additive mask of the questions, [S, 1, Q, T]; the prefix has T - Q positions.
        scaling: factor of the logits.
        probes: each captures the inputs if `module` is the layer it names.

    Returns:
        Output [S, T, H, D], and None in place of attention weights.
    """
    for probe in [each for each in probes if each.layer == module.layer_idx]:
        probe.query_SHTD, probe.key_SHTD, probe.mask_S1QT = query, key, attention_mask
        probe.scale = scaling or query.shape[-1] ** -0.5
    prefix = query.shape[2] - attention_mask.shape[2]
    early = F.scaled_dot_product_attention(
        query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], is_causal=True, scale=scaling
    )
    if not attention_mask.shape[2]:
        return early.transpose(1, 2), None
    late = F.scaled_dot_product_attention(query[:, :, prefix:], key, value, attn_mask=attention_mask, scale=scaling)
    return torch.cat([early, late], dim=2).transpose(1, 2), None


def use_packed_attention(model: PreTrainedModel) -> None:
    """Makes the decoder of a model compute `packed_attention`, which is registered with transformers."""
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation({"text_config": NAME})
