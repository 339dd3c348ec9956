"""VisPruner (ICCV 2025, arXiv 2412.01818): keeps what the vision tower attends to, and what differs from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context

STEP = 8  # tokens dropped at a time


@dataclass
class VisPruner(Pruner):
    """Keeps int(important * k) tokens that the vision tower attends to most, and fills up k with diverse ones.

    Attention is that of the class token in the tower's feature layer or, without one as in SigLIP, the mean of all
    patches (the authors' answer for such towers). The other tokens are sorted by attention; every second one is
    compared, by cosine of the tower's features, with those between, and the most similar are dropped, eight at a time,
    until the rest of the budget remains.

    Differs from the released code, which fails with an odd number of tokens: the side that drops then has one more.

    Args:
        important: share of the budget that goes to important tokens.
    """

    layer: int = 0
    important: float = 0.5

    traits = Traits(positions="renumber", nested=False, shares_picks_per_frame=True, needs_vision=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important <= 1:
            raise InputError(f"VisPruner: important={self.important} is no share: use a number from 0 to 1")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        received_CN, features_CND = ctx.vision().of_pools(ctx.pools)
        order_CN = received_CN.argsort(dim=1, descending=True, stable=True)
        first = int(self.important * k)
        return torch.cat([order_CN[:, :first], _diverse(order_CN[:, first:], features_CND, k - first)], dim=1)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the cosines (2 D a pair)."""
        return 2 * count * count * channels


def _diverse(list_CR: Tensor, features_CND: Tensor, k: int) -> Tensor:
    """Drops from a list of tokens, eight at a time, the even ones most similar to an odd one; k remain, [C, K]."""
    unit_CND = torch.nn.functional.normalize(features_CND, dim=-1)
    cosine_CNN = unit_CND @ unit_CND.transpose(1, 2)
    pool_C11 = torch.arange(len(list_CR), device=list_CR.device)[:, None, None]
    while (surplus := list_CR.shape[1] - k) > 0:
        even_CE, odd_CO = list_CR[:, ::2], list_CR[:, 1::2]
        if odd_CO.shape[1] == 0:
            return list_CR[:, :k]
        similarity_CE = cosine_CNN[pool_C11, even_CE[:, :, None], odd_CO[:, None]].amax(dim=2)
        order_CE = similarity_CE.argsort(dim=1, descending=True, stable=True)
        # Survivors stay in the order of similarity, as released: it decides which are even next.
        even_CE = even_CE.gather(1, order_CE[:, min(STEP, surplus) :])
        list_CR = torch.cat([even_CE, odd_CO], dim=1)
    return list_CR
