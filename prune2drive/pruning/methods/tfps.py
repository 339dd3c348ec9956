"""T-FPS: token-wise farthest point sampling (Prune2Drive, arXiv 2508.13305, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.methods.question_relevance import question_relevance, scaled
from prune2drive.pruning.selection import METRICS, MODES, STARTS, farthest_points, outlier_scores

RELEVANCES = (None, "question", "saliency")


@dataclass
class TFPS(Pruner):
    """Keeps, camera by camera, tokens that lie far apart in the decoder's hidden states.

    The defaults are the original implementation's, which differs from the paper's text: it starts at
    the most isolated token, not a random one, and cuts inside the LLM before layer 1. With
    `layer=0` it is DivPrune (arXiv 2503.02175) per camera; with `scope=global` it is greedy k-centre over
    the tokens of all cameras, which so share the budget by how much they differ.

    By default no question is looked at. A frame's kept tokens then serve all questions about it, and so
    does the cache of a prompt that begins with the frame; `relevance=question` gives that up.

    Args:
        metric: `cosine`, `l1` or `l2`.
        start: `isolated`, `centroid`, `random` or a token's index; see `farthest_points`.
        mode: `farthest`, or `nearest` for the paper's ablation.
        seed: of `start=random`; each sample and camera draws for itself.
        relevance: what multiplies each token's distances, scaled to 0..1 in its pool: `question`, its mean
            cosine with the question's words among the LLM's embeddings, or `saliency`, its distance from
            the pool's mean token, blind to the question; null for plain distances.
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
        if self.metric not in METRICS:
            raise InputError(f"TFPS: metric={self.metric!r} is not one of {', '.join(METRICS)}")
        if self.mode not in MODES:
            raise InputError(f"TFPS: mode={self.mode!r} is not one of {', '.join(MODES)}")
        if not isinstance(self.start, int) and self.start not in STARTS:
            raise InputError(f"TFPS: start={self.start!r} is not one of {', '.join(STARTS)} or a token's index")
        if self.relevance not in RELEVANCES:
            raise InputError(f"TFPS: relevance={self.relevance!r} is not one of null, question, saliency")
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
        """What each token's distances count, [C, N]; None where all count the same."""
        if self.relevance is None:
            return None
        if self.relevance == "question":
            relevance_CN = question_relevance(ctx)
        else:
            saliency_CN = outlier_scores(tokens_CND, self.metric)
            relevance_CN = scaled(saliency_CN, saliency_CN)
        return relevance_CN.to(tokens_CND) ** self.strength

    def flops(self, count: int, k: int, channels: int) -> int:
        """The distance matrix (2 D per pair) and one minimum per step and token."""
        return 2 * count * count * channels + count * k
