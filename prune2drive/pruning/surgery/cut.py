"""What is left of a batch of prompts from layer k on.

Shape suffixes: B batch rows, P prompt positions (padded), K kept positions, A axes of rotary positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.pruning.reuse.shared_prefix import Beginnings


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
    """One forward pass: what the decoder was given, and what is built once for all layers behind a cut.

    Args:
        past: positions that the cache held before.
        rotary: by the cut's layer.
        layer_mask: by the cut's layer.
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
        """The first position id of each row and the highest, on the last axis, where they were given."""
        if self.position_ids is None:
            return None
        ids_BP = self.position_ids if self.position_ids.ndim == 2 else self.position_ids[-1]
        return ids_BP[:, 0], ids_BP.amax(dim=1)


@dataclass
class Cut:
    """What is left of the prompt from layer k on; shorter rows are padded on the left with copies of position 0.

    Where rows share their beginnings, each of the two parts is padded so.

    Args:
        kept_BK: prompt positions.
        real_BK: False at the padding.
        shift_B: by how much `renumber` lowered the last position id.
        is_ragged: whether there is padding at all.
        layer: where it was cut.
        log_sizes_BK: logarithm of how many tokens each position stands for, where that weighs attention.
        beginnings: which rows begin alike, where they are read together.
    """

    kept_BK: Tensor
    real_BK: Tensor
    shift_B: Tensor
    is_ragged: bool
    layer: int
    log_sizes_BK: Tensor | None = None
    beginnings: Beginnings | None = None

    @classmethod
    def at(
        cls, blocks: Sequence[Sequence[Tensor]], device: torch.device, layer: int, beginnings: Beginnings | None = None
    ) -> Cut:
        """The cut of rows whose kept positions come in one block or more, each of them padded for itself."""
        padded = [_padded(rows) for rows in blocks]
        kept_BK, real_BK = (torch.cat(parts, dim=1) for parts in zip(*padded, strict=True))
        shift_B = torch.zeros(len(kept_BK), dtype=torch.long, device=device)
        return cls(kept_BK.to(device), real_BK.to(device), shift_B, not real_BK.all(), layer, beginnings=beginnings)

    def within(self, before: Cut | None) -> Cut:
        """The cut in prompt positions, if it was made among those that an earlier one left."""
        if before is None:
            return self
        device = self.kept_BK.device  # layers may lie on several
        kept_BK, log_sizes_BK = before.kept_BK.to(device).gather(1, self.kept_BK), before.log_sizes_BK
        if log_sizes_BK is not None:
            log_sizes_BK = log_sizes_BK.to(device).gather(1, self.kept_BK)
        return replace(self, kept_BK=kept_BK, log_sizes_BK=log_sizes_BK)

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

    def deepstack(self, visual_BP: Tensor, embeds_VD: Tensor) -> tuple[Tensor, Tensor]:
        """What Qwen3-VL adds to the states of visual positions after an early layer: where, [B, K], and the kept of it.

        Args:
            visual_BP: True at the prompt's visual positions.
            embeds_VD: one row for each of them.
        """
        kept_BK, real_BK = self.kept_BK.to(visual_BP.device), self.real_BK.to(visual_BP.device)
        rank_BP = (visual_BP.flatten().cumsum(0) - 1).view_as(visual_BP)
        visual_BK = visual_BP.gather(1, kept_BK) & real_BK
        return visual_BK, embeds_VD[rank_BP.gather(1, kept_BK)[visual_BK].to(embeds_VD.device)]

    def weigh(self, mask: Tensor | None, queries: int, behind: int, dtype: torch.dtype) -> Tensor:
        """A 4-D additive mask with the logarithm of each key's size: proportional attention (PACT, arXiv 2504.08966).

        Args:
            mask: of the layer: none (causal), True where attention may go, or additive.
            queries: positions that enter the layer.
            behind: later tokens in the cache, each of size one.
            dtype: of the layer's states.
        """
        assert self.log_sizes_BK is not None
        sizes_BK = nn.functional.pad(self.log_sizes_BK, (0, behind))
        length = sizes_BK.shape[1]
        if mask is None:
            first = length - queries
            place = torch.arange(length, device=sizes_BK.device)
            mask = (place <= place[first:, None])[None, None]
        if mask.dtype == torch.bool:
            lowest = torch.finfo(dtype).min
            mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, lowest)
        return mask + sizes_BK[:, None, None].to(mask)


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Positions of all rows, padded on the left, and where they are real; [B, K]."""
    longest = max(map(len, rows))
    kept_BK = torch.stack([nn.functional.pad(row, (longest - len(row), 0)) for row in rows])
    lengths_B = torch.tensor([len(row) for row in rows])
    return kept_BK, torch.arange(longest) >= longest - lengths_B[:, None]


def gather(states_BPD: Tensor, at_CK: Tensor, row_C: Tensor | None = None) -> Tensor:
    """States at some positions, [C, K, D].

    They are taken as rows of one list, which costs a small part of indexing or gathering on a CPU.

    Args:
        states_BPD: of the batch.
        at_CK: the positions.
        row_C: which rows of the batch these are of; by default one after another.
    """
    row_C = torch.arange(len(at_CK)) if row_C is None else row_C
    index_CK = row_C.to(at_CK.device)[:, None] * states_BPD.shape[1] + at_CK
    flat = states_BPD.flatten(0, 1).index_select(0, index_CK.flatten().to(states_BPD.device))
    return flat.unflatten(0, at_CK.shape)
