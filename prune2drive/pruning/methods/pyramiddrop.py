"""PyramidDrop (CVPR 2025, arXiv 2410.17247): drops more tokens the deeper the layer."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prune2drive.pruning.base import ScorePruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.stages import Stages


@dataclass
class PyramidDrop(Stages, ScorePruner):
    """Ranks tokens, at several cuts, by the attention that the last prompt position would pay them in the next layer.

    The authors cut before layers 8, 16 and 24 of 32, halve the tokens at each cut, and make one pool of all images:
    `scope=global`. Here the share kept at each of S cuts is the S-th root of k / N, so that the last cut leaves exactly
    k; with three cuts and k = N / 8 it is one half.
    """

    traits = Traits(nested=False, positions="renumber", needs_attention=True)

    def score(self, tokens_CND: Tensor, ctx: Context) -> Tensor:
        return ctx.of_pools(ctx.at.last_row())

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the keys, which the layer has yet to project (at most D wide), and one query's products with them."""
        return 2 * count * channels * (channels + 1)
