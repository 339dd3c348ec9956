"""FastV (ECCV 2024, arXiv 2403.06764): keeps what the last prompt token attends to."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from prune2drive.pruning.base import ScorePruner, Traits
from prune2drive.pruning.context import Context


@dataclass
class FastV(ScorePruner):
    """Ranks tokens by the attention that the last prompt position pays them in the layer before the cut.

    That is the released code's score; the paper's text speaks of the average attention received. Only that row of
    attention is computed again, so that all layers keep their fast kernel. The authors make one pool of all images:
    `scope=global`.
    """

    layer: int = 2

    traits = Traits(needs_attention=True)

    def score(self, tokens_CND: Tensor, ctx: Context) -> Tensor:
        assert ctx.before is not None
        return ctx.of_pools(ctx.before.last_row())

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts one query's products with the cached keys."""
        return 2 * count * channels
