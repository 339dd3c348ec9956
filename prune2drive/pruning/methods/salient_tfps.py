"""Salient T-FPS, a method of this project: farthest points weighed by saliency, on one budget for all cameras.

Shape suffixes: R samples, M tokens of all cameras of a sample, C pools, N tokens of a camera, D channels, J picks of a
camera, K kept.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.selection import farthest_points_and_gaps, outlier_scores

LEAST = 1e-6
"""Smallest saliency: a camera that shows one colour has the distances of rounding, and not none."""


@dataclass
class SalientTFPS(Pruner):
    """Selects tokens that lie far apart and stand out from their camera's mean, and shares the budget by the same rule.

    A step of farthest point sampling takes, of all cameras, the token with the largest saliency^strength times the
    cosine distance from the nearest selected token of its camera; saliency is the cosine distance from the mean of the
    camera's unit tokens. So small objects come before textures, and cameras get what they have to show: neither ratios
    for cameras nor a search for them are needed. Every camera keeps a token at least. The question is not read.

    Since distances do not grow from pick to pick, sampling each camera by itself and sorting all picks by distance is
    the same as going step by step; it costs what T-FPS costs with the largest camera's budget in every camera.

    Args:
        strength: exponent of saliency; 0 is farthest points with budgets by distance alone, as `ratios=dynamic
            ratios.pool=radius`.
        most: no camera keeps more than this multiple of an even share of the budget.
    """

    scope: str = "global"
    strength: float = 1.0
    most: float = 2.0

    traits = Traits(scopes=("global",), nested=False, shares_picks_per_frame=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.strength >= 0:
            raise InputError(f"SalientTFPS: strength={self.strength} must be 0 or higher")
        if not self.most >= 1:
            raise InputError(f"SalientTFPS: most={self.most} must be 1 (all cameras alike) or higher")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        layouts: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, pool in enumerate(ctx.pools):
            layouts[pool.sizes].append(place)
        if len(layouts) == 1:  # as nearly always: nothing is copied
            return self._select(tokens_CND, ctx.pools[0].sizes, k)
        found = [self._select(tokens_CND[torch.tensor(places)], sizes, k) for sizes, places in layouts.items()]
        order = [place for places in layouts.values() for place in places]
        return torch.cat(found)[torch.tensor(order).argsort()]

    def _select(self, tokens_RMD: Tensor, sizes: Sequence[int], k: int) -> Tensor:
        """Returns the picks of samples whose cameras have these numbers of tokens, [R, K]."""
        parts, starts = tokens_RMD.split(list(sizes), dim=1), list(accumulate(sizes, initial=0))
        picks, gaps = [], []
        for size in dict.fromkeys(size for size in sizes if size):
            mine = [camera for camera, count in enumerate(sizes) if count == size]
            alike = len(mine) == len(sizes)  # then the tokens need not be copied
            tokens_RCND = (
                tokens_RMD.unflatten(1, (-1, size)) if alike else torch.stack([parts[camera] for camera in mine], dim=1)
            )
            sampled = self._sample(tokens_RCND.flatten(0, 1), self._most(k, size, sizes))
            picks_RCJ, gap_RCJ = (part_CJ.unflatten(0, (-1, len(mine))) for part_CJ in sampled)
            start_C1 = torch.tensor([starts[camera] for camera in mine]).to(picks_RCJ.device)[:, None]
            picks.append((picks_RCJ + start_C1).flatten(1))
            gaps.append(gap_RCJ.flatten(1))
        order_RK = torch.cat(gaps, dim=1).argsort(dim=1, descending=True, stable=True)[:, :k]
        return torch.cat(picks, dim=1).gather(1, order_RK)

    def _most(self, k: int, size: int, sizes: Sequence[int]) -> int:
        """Returns how many tokens at most are kept of a camera that has `size`."""
        return min(size, math.ceil(self.most * k * size / sum(sizes)))

    def _sample(self, tokens_CND: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """Returns each camera's first picks, and their weighted distance from those before; [C, J]."""
        weight_CN = outlier_scores(tokens_CND).clamp(min=LEAST) ** self.strength
        return farthest_points_and_gaps(tokens_CND, most, weight_CN=weight_CN)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts, for a camera, saliency (3 D a token), distances (2 D a pair) and one minimum a step and token."""
        return 3 * count * channels + 2 * count * count * channels + count * k

    def pool_flops(self, sizes: Sequence[int], k: int, channels: int) -> int:
        return sum(self.flops(size, self._most(k, size, sizes), channels) for size in sizes)
