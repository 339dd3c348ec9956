"""Outlier tokens: a control for methods that seek diversity."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prune2drive.pruning.base import ScorePruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.selection import outlier_scores


@dataclass
class OutlierPruner(ScorePruner):
    """Ranks tokens by their cosine distance from the mean of the pool's unit tokens.

    There is no greedy step: two similar outliers are both kept, so that what a diversity method gains over this is the
    gain of spreading its picks. The question is not read. No publication is known to us.
    """

    traits = Traits(shares_picks_per_frame=True)

    def score(self, tokens_CND: Tensor, ctx: Context) -> Tensor:
        return outlier_scores(tokens_CND)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the mean (1 D a token) and the product with it (2 D)."""
        return 3 * count * channels
