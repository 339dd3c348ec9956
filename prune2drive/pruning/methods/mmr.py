"""Maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998): keeps important tokens that are unlike each other.

Shape suffixes: C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.errors import InputError, check_choice
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.question_relevance import question_relevance, scaled
from prune2drive.pruning.selection import cosines


@dataclass
class MMR(Pruner):
    """Takes the most important token, then always the one with the largest balance of importance and likeness.

    The balance is `strength` * importance - (1 - `strength`) * the largest cosine with a kept token; importance is
    scaled to 0..1 in the pool. IDPruner, ID-Selection and ReDiPrune are this rule with importance of their own; none of
    them is reproduced.

    Args:
        importance: `attention`, what the last prompt position pays in the layer before the cut, as FastV; `vision`,
            what the vision tower attends to, as VisPruner; `question`, the mean cosine with the question among the
            LLM's embeddings; `norm`, the length of the token's states.
        strength: from 0, diversity alone, to 1, importance alone.
    """

    layer: int = 2
    importance: str = "attention"
    strength: float = 0.5

    def __post_init__(self) -> None:
        check_choice("pruner.importance", self.importance, IMPORTANCE)
        super().__post_init__()
        if not 0 <= self.strength <= 1:
            raise InputError(f"MMR: strength={self.strength} is no share: use a number from 0 to 1")

    @property
    def traits(self) -> Traits:
        return Traits(
            shares_picks_per_frame=self.importance in ("vision", "norm"),
            needs_attention=self.importance == "attention",
            needs_vision=self.importance == "vision",
        )

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        importance_CN = IMPORTANCE[self.importance](tokens_CND, ctx).to(tokens_CND)
        worth_CN = self.strength * scaled(importance_CN, importance_CN)
        likeness_CNN = (1 - self.strength) * cosines(tokens_CND)
        pool_C = torch.arange(len(tokens_CND), device=tokens_CND.device)
        pick_C = importance_CN.argmax(dim=1)
        most_CN = torch.full_like(worth_CN, -torch.inf)
        picks_CK = torch.empty(len(tokens_CND), k, dtype=torch.long, device=tokens_CND.device)
        for step in range(k):
            picks_CK[:, step] = pick_C
            most_CN = torch.maximum(most_CN, likeness_CNN[pool_C, pick_C])
            worth_CN[pool_C, pick_C] = -torch.inf
            pick_C = (worth_CN - most_CN).argmax(dim=1)
        return picks_CK

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the cosines (2 D a pair), and in each step a maximum and a difference a token."""
        return 2 * count * count * channels + 2 * count * k


def _attention(tokens_CND: Tensor, ctx: Context) -> Tensor:
    assert ctx.before is not None
    return ctx.of_pools(ctx.before.last_row())


def _vision(tokens_CND: Tensor, ctx: Context) -> Tensor:
    vision = ctx.vision()
    return vision.at_pools(vision.received, ctx.pools)


IMPORTANCE: Mapping[str, Callable[[Tensor, Context], Tensor]] = {
    "attention": _attention,
    "vision": _vision,
    "question": lambda tokens_CND, ctx: question_relevance(ctx),
    "norm": lambda tokens_CND, ctx: tokens_CND.norm(dim=2),
}
