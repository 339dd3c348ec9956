"""DivPrune (CVPR 2025, arXiv 2503.02175): max-min diversity of the tokens that enter the LLM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.selection import farthest_points


@dataclass
class DivPrune(Pruner):
    """Starts at the most isolated token, then adds the one farthest from all kept, by cosine distance.

    Start and rule are those of T-FPS (Prune2Drive, arXiv 2508.13305), so `TFPS` with the same layer and
    scope keeps the same tokens: what sets T-FPS apart is the cut at layer 1 instead of before the LLM,
    kept position ids instead of renumbered ones, a pool for each camera, and their ratios. The authors
    have one image, in one pool. Their code computes in half precision, may pick a token twice where
    others equal it, and rounds half budgets to even; here all picks differ and the budget is the
    framework's.
    """

    layer: int = 0

    traits = Traits(positions="renumber", shares_picks_per_frame=True)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        return farthest_points(tokens_CND, k)

    def flops(self, count: int, k: int, channels: int) -> int:
        """The distance matrix (2 D per pair) and one minimum per step and token."""
        return 2 * count * count * channels + count * k
