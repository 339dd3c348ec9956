"""The attention mask of what a cut leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.masking_utils import create_causal_mask

from prune2drive.pruning.surgery.cut import Cut, Forward


@dataclass(frozen=True)
class Masks:
    """Masks of a decoder's layers behind a cut, in whatever form its attention wants them.

    Args:
        config: the decoder's.
    """

    config: Any

    def behind(self, cut: Cut, step: Forward, hidden: Tensor, cache: Any, index: int, prompt: int) -> Any:
        """The layer's mask, made once a forward pass; None where causal attention needs none.

        Args:
            cut: the last one before the layer.
            step: the forward pass.
            hidden: what enters the layer, [B, K, D].
            cache: the KV cache, None without one.
            index: of the layer.
            prompt: the prompt's length P.
        """
        if cut.layer not in step.layer_mask:
            past = 0 if step.is_prefill else cache.get_seq_length(index)
            behind = past + hidden.shape[1] - cut.length
            padding = cut.mask_2d(step.mask, prompt, behind, len(hidden))
            mask: Any = create_causal_mask(self.config, hidden, padding, cache, position_ids=None, layer_idx=index)
            if cut.log_sizes_BK is not None:
                mask = cut.weigh(mask, hidden.shape[1], behind, hidden.dtype)
            step.layer_mask[cut.layer] = mask
        mask = step.layer_mask[cut.layer]
        return mask.to(hidden.device) if isinstance(mask, Tensor) else mask
