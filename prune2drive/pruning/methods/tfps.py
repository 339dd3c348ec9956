"""T-FPS (Prune2Drive, arXiv 2508.13305, section 3): token-wise farthest point sampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.errors import InputError, check_choice
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.question_relevance import question_relevance, scaled
from prune2drive.pruning.selection import METRICS, MODES, STARTS, farthest_points, outlier_scores

RELEVANCES = (None, "question", "saliency")


@dataclass
class TFPS(Pruner):
    """Selects tokens that lie far apart in the decoder's hidden states, camera by camera.

    The defaults are the original implementation's, which starts at the most isolated token, not at a random one as the
    paper says, and cuts before layer 1 of the LLM. With `layer=0` it is DivPrune (arXiv 2503.02175) in every camera;
    with `scope=global` it is greedy k-centre over all cameras, which share the budget by how much they differ.

    Without `relevance=question` the question is not read: a frame's kept tokens, and the KV cache of a prompt that
    begins with the frame, then serve all questions about it.

    Args:
        metric: `cosine`, `l1` or `l2`.
        start: `isolated`, `centroid`, `random` or a token's index; see `farthest_points`.
        mode: `farthest`, or `nearest` for the paper's ablation.
        seed: seed of `start=random`; every sample and camera has a draw of its own.
        relevance: what multiplies tokens' distances, scaled to 0..1 in the pool: `question`, the mean cosine with the
            question's words among the LLM's embeddings; `saliency`, the distance from the pool's mean token; null for
            plain distances.
        strength: exponent of relevance; 0 is plain distances.
    """

    metric: str = "cosine"
    start: str | int = "isolated"
    mode: str = "farthest"
    seed: int = 0
    relevance: str | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("pruner.metric", self.metric, METRICS)
        check_choice("pruner.mode", self.mode, MODES)
        if not isinstance(self.start, int):
            check_choice("pruner.start", self.start, (*STARTS, "a token's index"))
        check_choice("pruner.relevance", self.relevance, RELEVANCES)
        if self.relevance and self.mode == "nearest":
            raise InputError(f"TFPS: relevance={self.relevance} weighs mode=farthest: leave one of them out")
        if not self.strength >= 0:
            raise InputError(f"TFPS: strength={self.strength} must be 0 or higher")

    @property
    def traits(self) -> Traits:
        return Traits(shares_picks_per_frame=self.relevance != "question" and self.start != "random")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        start: str | int | Tensor = self.start
        if isinstance(start, int) and not 0 <= start < tokens_CND.shape[1]:
            raise InputError(f"TFPS: start={start} is outside a camera's {tokens_CND.shape[1]} tokens, 0 the first")
        if start == "random":
            count = tokens_CND.shape[1]
            start = torch.cat([torch.randint(count, (1,), generator=pool.generator(self.seed)) for pool in ctx.pools])
        return farthest_points(tokens_CND, k, self.metric, start, self.mode, weight=self._weight(tokens_CND, ctx))

    def _weight(self, tokens_CND: Tensor, ctx: Context) -> Tensor | None:
        """Returns what multiplies each token's distances, [C, N]; None for plain distances."""
        if self.relevance is None:
            return None
        if self.relevance == "question":
            relevance_CN = question_relevance(ctx)
        else:
            saliency_CN = outlier_scores(tokens_CND, self.metric)
            relevance_CN = scaled(saliency_CN, saliency_CN)
        return relevance_CN.to(tokens_CND) ** self.strength

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the distance matrix (2 D a pair) and one minimum a step and token."""
        return 2 * count * count * channels + count * k
