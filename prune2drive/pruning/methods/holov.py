"""HoloV (NeurIPS 2025, arXiv 2510.02912): keeps what the vision tower attends to, in quotas over the image.

Shape suffixes: C pools, N tokens of a pool, P parts of the image, M tokens of a part, D channels, K kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from prune2drive.errors import InputError, check_whole
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.selection import cosines, highest

EPSILON = 1e-6


@dataclass
class HoloV(Pruner):
    """Shares each pool's budget between parts of consecutive tokens, and keeps the most attended in each.

    Attention is that of the class token in the tower's feature layer or, without one, the mean of all patches. A part's
    score is the mean of its tokens' attention plus `alpha` times the variance of their cosines with the part's other
    tokens, scaled to the part's mean attention. As released, variance so hardly changes a quota: all parts' scores grow
    by the share alpha, but for a small constant in the scale's denominator.

    A part gets the floor of its share of the budget; then the parts get one more each, highest score first. Differs
    from the released code: what a part cannot hold, it fills up with tokens of zeros, here other parts get it in the
    same way; it leaves the tokens of a part in the order of attention, here they are in raster order; it does not scale
    the score of a part of one token.

    Args:
        parts: parts of a pool.
        alpha: weight of the variance.
    """

    layer: int = 0
    parts: int = 16
    alpha: float = 0.09

    traits = Traits(positions="renumber", nested=False, shares_picks_per_frame=True, needs_vision=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("pruner.parts", self.parts)
        if not self.alpha >= 0:
            raise InputError(f"HoloV: alpha={self.alpha} must be 0 or higher")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        vision, count = ctx.vision(), tokens_CND.shape[1]
        received_CN = vision.at_pools(vision.received, ctx.pools)
        sizes = [count // self.parts + (part < count % self.parts) for part in range(min(self.parts, count))]
        parts = received_CN.split(sizes, dim=1), tokens_CND.split(sizes, dim=1)
        score_CP = torch.stack([self.score(*part) for part in zip(*parts, strict=True)], dim=1)
        quota_CP = (k * score_CP / (score_CP.sum(dim=1, keepdim=True) + EPSILON)).floor().long()
        starts = accumulate(sizes, initial=0)
        order_CN = torch.cat([highest(part, part.shape[1]) + at for part, at in zip(parts[0], starts, strict=False)], 1)
        # Within the quota of its part a token's round is 0 or less, then that in which the part gets one more.
        rank_N = torch.cat([torch.arange(size) for size in sizes]).to(order_CN.device)
        part_N = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(order_CN.device)
        round_CN = rank_N + 1 - quota_CP.index_select(1, part_N)
        turn_CP = highest(score_CP, len(sizes)).argsort(dim=1)
        place_CN = round_CN * len(sizes) + turn_CP.index_select(1, part_N)
        return order_CN.gather(1, place_CN.argsort(dim=1, stable=True)[:, :k])

    def score(self, received_CM: Tensor, tokens_CMD: Tensor) -> Tensor:
        """Returns a part's score, [C]."""
        attention_CM, size = 1000 * received_CM.to(tokens_CMD), tokens_CMD.shape[1]
        if size == 1:
            return attention_CM[:, 0]
        own_MM = torch.eye(size, dtype=torch.bool, device=tokens_CMD.device)
        cosine_CMM = cosines(tokens_CMD).masked_fill(own_MM, 0)
        mean_CM1 = cosine_CMM.sum(dim=2, keepdim=True) / (size - 1)
        variance_CM = (cosine_CMM - mean_CM1).square().sum(dim=2) / (size - 1)
        scale_C1 = attention_CM.mean(dim=1, keepdim=True) / (variance_CM.mean(dim=1, keepdim=True) + EPSILON)
        return (attention_CM + self.alpha * scale_C1 * variance_CM).mean(dim=1)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the cosines within parts (2 D a pair)."""
        return 2 * count * count * channels // self.parts
