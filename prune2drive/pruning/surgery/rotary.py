"""Rotary embeddings of what a cut leaves.

Shape suffixes: B batch rows, P prompt positions (padded), A axes of rotary positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prune2drive.families import decoder_of
from prune2drive.pruning.surgery.cut import Cut, Forward, gather


@dataclass(frozen=True)
class Rotary:
    """How kept tokens are told where they are.

    Args:
        decoder: computes cosines and sines of position ids.
        positions: `keep` or `renumber`.
    """

    decoder: Any
    positions: str

    def behind(
        self, cut: Cut, step: Forward, hidden: Tensor, given: tuple[Tensor, Tensor], prompt: int
    ) -> tuple[Tensor, Tensor] | None:
        """For the layers behind a cut, made once a forward pass; None where what they are given is right.

        Args:
            cut: the last one before the layer.
            step: the forward pass.
            hidden: what enters the layer, [B, K, D].
            given: cosines and sines of the prompt's own positions.
            prompt: its length P.
        """
        if cut.layer in step.rotary:
            pass
        elif step.is_prefill and self.positions == "keep":
            cos, sin = (gather(part.expand(len(hidden), -1, -1), cut.kept_BK) for part in given)
            step.rotary[cut.layer] = cos, sin
        elif step.is_prefill:
            step.rotary[cut.layer] = self._of(hidden, cut.renumber(self._ids(step, len(hidden), prompt, hidden)))
        elif self.positions == "renumber":
            rows, width = hidden.shape[:2]
            ids_ABP = self._ids(step, rows, width, hidden) - cut.shift_B.to(hidden.device)[:, None]
            step.rotary[cut.layer] = self._of(hidden, ids_ABP)
        made = step.rotary.get(cut.layer)
        return None if made is None else (made[0].to(hidden.device), made[1].to(hidden.device))

    def _ids(self, step: Forward, rows: int, width: int, hidden: Tensor) -> Tensor:
        """Original position ids [A, B, width]: one axis, or three for multimodal rotary embeddings."""
        ids = step.position_ids
        ids = step.past + torch.arange(width)[None] if ids is None else ids
        ids = (ids[None] if ids.ndim == 2 else ids[-3:]).to(hidden.device)
        return ids.expand(decoder_of(self.decoder.config).rope_axes, rows, -1)

    def _of(self, hidden: Tensor, ids_ABP: Tensor) -> tuple[Tensor, Tensor]:
        return self.decoder.rotary_emb(hidden, ids_ABP if len(ids_ABP) > 1 else ids_ABP[0])
