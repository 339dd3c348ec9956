"""Facility location: keeps the tokens that represent all others best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context


@dataclass
class FacilityLocation(Pruner):
    """Maximizes greedily the sum, over all tokens j, of the largest cosine of j with a kept token.

    Farthest points bound the distance of the worst covered token; this bounds the average, and so favours what there is
    much of. The result is worth at least 1 - 1/e of the optimum (Nemhauser, Wolsey & Fisher, 1978; as a summary of
    data: Lin & Bilmes, 2011), with -1 as the cosine of an uncovered token. Gains that differ by rounding are ties, as
    of two tokens that cover just each other; ties go to the lowest index. The question is not read.
    """

    traits = Traits(shares_picks_per_frame=True)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        pools, count, _ = tokens_CND.shape
        unit_CND = normalize(tokens_CND, dim=-1)
        cosine_CNN = unit_CND @ unit_CND.transpose(1, 2)
        pool_C = torch.arange(pools, device=cosine_CNN.device)
        cover_CN = cosine_CNN.new_full((pools, count), -1)
        free_CN = torch.ones_like(cover_CN, dtype=torch.bool)
        picks_CK = torch.empty(pools, k, dtype=torch.long, device=cosine_CNN.device)
        rounding = torch.finfo(cosine_CNN.dtype).eps
        for step in range(k):
            gain_CN = (cosine_CNN - cover_CN[:, None]).clamp_(min=0).sum(dim=2)
            gain_CN = gain_CN.masked_fill(~free_CN, -torch.inf)
            best_C1 = gain_CN.amax(dim=1, keepdim=True)
            pick_C = (gain_CN >= best_C1 - 8 * rounding * (1 + best_C1)).int().argmax(dim=1)
            picks_CK[:, step] = pick_C
            free_CN[pool_C, pick_C] = False
            cover_CN = torch.maximum(cover_CN, cosine_CNN[pool_C, pick_C])
        return picks_CK

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the cosines (2 D a pair), and in each step a difference, a maximum and a sum a pair."""
        return 2 * count * count * channels + 3 * count * count * k
