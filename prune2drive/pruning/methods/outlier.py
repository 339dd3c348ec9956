"""Outlier tokens: those least like the average of their camera, the control for every diversity method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prune2drive.pruning.base import ScorePruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.selection import outlier_scores


@dataclass
class OutlierPruner(ScorePruner):
    """Keeps the tokens at the largest cosine distance from the mean of the pool's unit tokens.

    One pass without a greedy step: two outliers that are alike are both kept. What a method that
    spreads its picks gains over this is the gain of spreading. Blind to the question. No publication is
    known to us.
    """

    traits = Traits(shares_picks_per_frame=True)

    def score(self, tokens_CND: Tensor, ctx: Context) -> Tensor:
        return outlier_scores(tokens_CND)

    def flops(self, count: int, k: int, channels: int) -> int:
        """The mean (1 D a token) and the product with it (2 D)."""
        return 3 * count * channels
