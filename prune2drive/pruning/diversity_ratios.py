"""A budget that follows diversity: `ratios=diversity` shares one total between the cameras of each sample.

Shape suffixes: R samples, C cameras, M tokens of all cameras, N tokens of a camera, D channels, J tokens of a camera
beyond its first, K tokens of the budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from prune2drive.errors import InputError
from prune2drive.pruning.ratios import Allocator, Uniform

LEAST = 1e-12
"""Smallest share: cameras that show one colour get tokens after all others."""


@dataclass
class Diversity(Allocator):
    """Keeps as many tokens in all as `Uniform`, shared by how diverse the cameras are; at least 1 each.

    A camera's share is N * (within * between)^exponent: the mean cosine distance of its tokens from each other, times
    that from all other cameras' tokens, both from the means of unit tokens. Shares become whole numbers by the method
    of Sainte-Lague. The question is not read, and no distance between two tokens is computed.

    After TrimTokenator-LC (arXiv 2512.22748) and MVPruner (arXiv 2606.27660), which were known to us by their abstracts
    only: their idea, no reproduction.

    Args:
        keep: share of a sample's tokens retained.
        exponent: 0 shares by the number of tokens alone.
    """

    keep: float = 0.1
    exponent: float = 1.0

    def __post_init__(self) -> None:
        self._total = Uniform(self.keep)
        if isinstance(self.exponent, bool) or not (isfinite(self.exponent) and self.exponent >= 0):
            raise InputError(f"ratios.exponent={self.exponent}: give a number, 0 (all cameras alike) or more")

    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        """Returns the ratios that make up the sample's total."""
        return self._total.ratios(cameras)

    def describe(self, cameras: Sequence[str]) -> dict[str, Any]:
        return {"shared": float(self.keep), "exponent": float(self.exponent)}

    def allocate(self, tokens_RMD: Tensor, counts: Mapping[str, int], k: int) -> Tensor:
        sizes = list(counts.values())
        share_RC = diversity(tokens_RMD, sizes).clamp(min=LEAST) ** self.exponent * tokens_RMD.new_tensor(sizes)
        owned_J = torch.arange(1, k - len(sizes) + 1, device=tokens_RMD.device)
        worth_RJC = share_RC[:, None] / (2 * owned_J + 1).to(share_RC)[:, None]
        worth_RJC = worth_RJC.masked_fill(owned_J[:, None] >= torch.tensor(sizes).to(owned_J), -torch.inf)
        later_RK = worth_RJC.flatten(1).argsort(dim=1, descending=True, stable=True)[:, : k - len(sizes)]
        each_RC = torch.arange(len(sizes), device=later_RK.device).expand(len(later_RK), -1)
        return torch.cat([each_RC, later_RK % len(sizes)], dim=1)

    def flops(self, counts: Mapping[str, int], k: int, channels: int) -> int:
        """Counts the norms (2 D a token) and the means (1 D)."""
        return 3 * sum(counts.values()) * channels


def diversity(tokens_RMD: Tensor, counts: Sequence[int]) -> Tensor:
    """Returns each camera's mean cosine distance within, times that from the other cameras' tokens; [R, C].

    The mean cosine of two sets of tokens is the product of their mean unit tokens. Where there is no other camera, the
    distance from others is 1.

    Args:
        tokens_RMD: the cameras' tokens, camera after camera.
        counts: number of tokens of each camera.
    """
    parts = normalize(tokens_RMD, dim=-1).split(list(counts), dim=1)
    sum_RCD = torch.stack([part_RND.sum(dim=1) for part_RND in parts], dim=1)
    size_C1 = tokens_RMD.new_tensor(counts)[:, None]
    mean_RCD = sum_RCD / size_C1
    others_RCD = (sum_RCD.sum(dim=1, keepdim=True) - sum_RCD) / (size_C1.sum() - size_C1).clamp(min=1)
    return (1 - mean_RCD.square().sum(dim=2)) * (1 - (mean_RCD * others_RCD).sum(dim=2))
