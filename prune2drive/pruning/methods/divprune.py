"""DivPrune (CVPR 2025, arXiv 2503.02175): keeps the most diverse of the tokens that enter the LLM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.selection import farthest_points


@dataclass
class DivPrune(Pruner):
    """Selects by max-min diversity: the most isolated token, then always the one farthest from all kept, by cosine.

    `TFPS` (Prune2Drive, arXiv 2508.13305) with the same layer and scope keeps the same tokens; it differs in that it
    cuts at layer 1, keeps position ids, and has a pool and a ratio for each camera. The authors of DivPrune have one
    image in one pool. Differs from their code, which computes in half precision, may pick a token twice where others
    equal it, and rounds half budgets to even.
    """

    layer: int = 0

    traits = Traits(positions="renumber", shares_picks_per_frame=True)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        return farthest_points(tokens_CND, k)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the distance matrix (2 D a pair) and one minimum a step and token."""
        return 2 * count * count * channels + count * k
