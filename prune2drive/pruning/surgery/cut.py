"""A cut: which positions of a batch of prompts remain from a decoder layer on.

Shape suffixes: B batch rows, P prompt positions (padded), K kept positions, D channels, V visual positions, C pools.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass
class Cut:
    """The prompt positions that remain from a layer on; shorter rows are padded on the left with copies of position 0.

    Args:
        kept_BK: kept prompt positions, ascending.
        real_BK: False at the padding.
        is_ragged: whether there is padding at all.
        layer: decoder layer at whose input the others were dropped.
        shift_B: by how much `positions=renumber` lowered each row's last position id.
        log_sizes_BK: logarithm of the number of tokens that each position stands for, under proportional attention.
    """

    kept_BK: Tensor
    real_BK: Tensor
    is_ragged: bool
    layer: int
    shift_B: Tensor
    log_sizes_BK: Tensor | None = None

    @classmethod
    def at(cls, layer: int, kept_BK: Tensor, real_BK: Tensor, device: torch.device) -> Cut:
        """Makes a cut on a device, from positions on the CPU."""
        shift_B = torch.zeros(len(kept_BK), dtype=torch.long, device=device)
        return cls(kept_BK.to(device), real_BK.to(device), not real_BK.all(), layer, shift_B)

    @property
    def length(self) -> int:
        return self.kept_BK.shape[1]

    def of_rows(self, rows: Tensor) -> Cut:
        """Returns the cut of some batch rows."""
        log_sizes_BK = None if self.log_sizes_BK is None else self.log_sizes_BK[rows.to(self.log_sizes_BK.device)]
        at = rows.to(self.kept_BK.device)
        return replace(
            self,
            kept_BK=self.kept_BK[at],
            real_BK=self.real_BK[at],
            shift_B=self.shift_B[at],
            log_sizes_BK=log_sizes_BK,
        )

    def within(self, before: Cut | None) -> Cut:
        """Returns the cut in prompt positions, where it was made among those that an earlier cut kept."""
        if before is None:
            return self
        device = self.kept_BK.device  # layers may lie on several
        kept_BK, log_sizes_BK = before.kept_BK.to(device).gather(1, self.kept_BK), before.log_sizes_BK
        if log_sizes_BK is not None:
            log_sizes_BK = log_sizes_BK.to(device).gather(1, self.kept_BK)
        return replace(self, kept_BK=kept_BK, log_sizes_BK=log_sizes_BK)

    def deepstack(self, visual_BP: Tensor, embeds_VD: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps the features that some families add to the states of visual positions after an early layer.

        Args:
            visual_BP: True at the full prompt's visual positions.
            embeds_VD: one row for each visual position.

        Returns:
            True at the kept visual positions, [B, K], and their rows.
        """
        kept_BK, real_BK = self.kept_BK.to(visual_BP.device), self.real_BK.to(visual_BP.device)
        rank_BP = (visual_BP.flatten().cumsum(0) - 1).view_as(visual_BP)
        visual_BK = visual_BP.gather(1, kept_BK) & real_BK
        return visual_BK, embeds_VD[rank_BP.gather(1, kept_BK)[visual_BK].to(embeds_VD.device)]


def pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads each row's positions on the left with 0; returns them and where they are real, both [B, K]."""
    longest = max(map(len, rows))
    kept_BK = torch.stack([nn.functional.pad(row, (longest - len(row), 0)) for row in rows])
    lengths_B = torch.tensor([len(row) for row in rows])
    return kept_BK, torch.arange(longest) >= longest - lengths_B[:, None]


def gather(states_BPD: Tensor, at_CK: Tensor, row_C: Tensor | None = None) -> Tensor:
    """Gathers states at some positions; [C, K, D].

    They are taken as rows of one list, which costs a small part of indexing or gathering on a CPU.

    Args:
        states_BPD: states of the batch.
        at_CK: positions to take.
        row_C: batch row of each row of `at_CK`; by default one after another.
    """
    row_C = torch.arange(len(at_CK), device=at_CK.device) if row_C is None else row_C
    index_CK = row_C.to(at_CK.device)[:, None] * states_BPD.shape[1] + at_CK
    flat = states_BPD.flatten(0, 1).index_select(0, index_CK.flatten().to(states_BPD.device))
    return flat.view(*at_CK.shape, states_BPD.shape[-1])
