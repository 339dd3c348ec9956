"""One call of a model and one forward pass of its decoder, as the hooks see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class ModelCall:
    """What the model around the decoder was called with.

    Args:
        input_ids: token ids, [B, P]; None where embeddings were given.
        brings_images: whether pixels or image features came with the call.
        tells_positions: whether position ids did.
        logits_to_keep: for how many last positions, or which ones, logits are wanted; 0 is all.
    """

    input_ids: Tensor | None = None
    brings_images: bool = False
    tells_positions: bool = True
    logits_to_keep: int | Tensor = 0

    @classmethod
    def of(cls, given: Mapping[str, Any], outer: ModelCall) -> ModelCall:
        """Reads a call's arguments by name; `outer` is the call that it was made within."""
        features = given.get("mm_encoder_outputs") or {}
        return cls(
            given.get("input_ids"),
            given.get("pixel_values") is not None or features.get("image") is not None,
            given.get("position_ids") is not None,
            given.get("logits_to_keep", outer.logits_to_keep),
        )


@dataclass
class ForwardPass:
    """One forward pass of the decoder, with what is built once for all layers after a cut.

    Args:
        past: positions that the KV cache held before.
        mask: padding mask of the full length, [B, P]; None where nothing is masked.
        position_ids: position ids, [B, P] or [axes, B, P], where they were given.
        rotary: cosines and sines by the layer of the cut.
        layer_mask: attention masks by the layer of the cut.
    """

    past: int
    mask: Tensor | None
    position_ids: Tensor | None
    rotary: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    layer_mask: dict[int, Any] = field(default_factory=dict)

    @property
    def is_prefill(self) -> bool:
        return self.past == 0

    @property
    def span(self) -> tuple[Tensor, Tensor] | None:
        """Each row's first and highest position id on the last axis, [B] and [B]; None where no ids were given."""
        if self.position_ids is None:
            return None
        ids_BP = self.position_ids if self.position_ids.ndim == 2 else self.position_ids[-1]
        return ids_BP[:, 0], ids_BP.amax(dim=1)
