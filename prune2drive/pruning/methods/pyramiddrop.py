"""PyramidDrop (CVPR 2025, arXiv 2410.17247): more tokens are dropped the deeper the layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.pruning.base import ScorePruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.stages import Stages


@dataclass
class PyramidDrop(Stages, ScorePruner):
    """At each cut keeps what the last prompt position would attend to in the layer that follows.

    The authors cut before layers 8, 16 and 24 of 32 and halve the tokens each time. Here the share kept
    by each cut is the third root of the budget, so that the last leaves exactly k: with k = N / 8 it is
    one half, theirs. All images are one pool there: `scope=global`.
    """

    traits = Traits(nested=False, positions="renumber", needs_attention=True)

    def score(self, tokens_CND: Tensor, ctx: Context) -> Tensor:
        attention_BP = ctx.at.last_row()
        return torch.stack([attention_BP[pool.row, pool.at_N.to(attention_BP.device)] for pool in ctx.pools])

    def flops(self, count: int, k: int, channels: int) -> int:
        """The keys, which the layer has yet to project (at most D wide), and one query's products with them."""
        return 2 * count * channels * (channels + 1)
