"""What is left of a batch of prompts from layer k on.

Shape suffixes: B batch rows, P prompt positions (padded), K kept positions, A axes of rotary positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """What the model around the decoder was called with."""

    input_ids: Tensor | None = None
    brings_images: bool = False
    tells_positions: bool = True
    logits_to_keep: int | Tensor = 0

    @classmethod
    def of(cls, given: Mapping[str, Any], outer: Call) -> Call:
        """The call with these arguments, made within `outer`."""
        features = given.get("mm_encoder_outputs") or {}
        return cls(
            given.get("input_ids"),
            given.get("pixel_values") is not None or features.get("image") is not None,
            given.get("position_ids") is not None,
            given.get("logits_to_keep", outer.logits_to_keep),
        )


@dataclass
class Forward:
    """One forward pass: what the decoder was given, and what is built once for all layers from k on.

    Args:
        past: positions that the cache held before.
    """

    past: int
    mask: Tensor | None
    position_ids: Tensor | None
    rotary: tuple[Tensor, Tensor] | None = None
    layer_mask: list[Any] = field(default_factory=list)

    @property
    def is_prefill(self) -> bool:
        return self.past == 0

    @property
    def span(self) -> tuple[Tensor, Tensor] | None:
        """The first position id of each row and the highest, on the last axis, where they were given."""
        if self.position_ids is None:
            return None
        ids_BP = self.position_ids if self.position_ids.ndim == 2 else self.position_ids[-1]
        return ids_BP[:, 0], ids_BP.amax(dim=1)


@dataclass
class Cut:
    """What is left of the prompt from layer k on; shorter rows are padded on the left with copies of position 0.

    Args:
        kept_BK: prompt positions.
        real_BK: False at the padding.
        shift_B: by how much `renumber` lowered the last position id.
        is_ragged: whether there is padding at all.
    """

    kept_BK: Tensor
    real_BK: Tensor
    shift_B: Tensor
    is_ragged: bool

    @classmethod
    def at(cls, rows: Sequence[Tensor], device: torch.device) -> Cut:
        longest = max(map(len, rows))
        kept_BK = torch.stack([nn.functional.pad(row, (longest - len(row), 0)) for row in rows])
        lengths_B = torch.tensor([len(row) for row in rows])
        real_BK = torch.arange(longest) >= longest - lengths_B[:, None]
        shift_B = torch.zeros(len(rows), dtype=torch.long, device=device)
        return cls(kept_BK.to(device), real_BK.to(device), shift_B, is_ragged=not real_BK.all())

    @property
    def length(self) -> int:
        return self.kept_BK.shape[1]

    def renumber(self, ids_ABP: Tensor) -> Tensor:
        """Closes the gaps in position ids: each row's ids in use become 0, 1, 2, ... on all axes together."""
        ids_ABK = ids_ABP.gather(2, self.kept_BK.expand(len(ids_ABP), -1, -1))
        for row, real_K in enumerate(self.real_BK):
            used, ranks = ids_ABK[:, row, real_K].unique(return_inverse=True)
            self.shift_B[row] = used[-1] - (len(used) - 1)
            ids_ABK[:, row, real_K] = ranks
        return ids_ABK

    def mask_2d(self, full: Tensor | None, prompt: int, behind: int, rows: int) -> Tensor | None:
        """The padding mask of the kept prompt and `behind` later tokens; None where nothing is masked."""
        if full is None and not self.is_ragged:
            return None
        later = self.real_BK.new_ones(rows, behind) if full is None else full[:, prompt:].to(self.real_BK)
        return torch.cat([self.real_BK, later], dim=1)


def gather(states_BPD: Tensor, kept_BK: Tensor) -> Tensor:
    """States at the kept positions, [B, K, D]."""
    index = kept_BK.to(states_BPD.device)[..., None]
    return states_BPD.gather(1, index.expand(-1, -1, states_BPD.shape[-1]))
