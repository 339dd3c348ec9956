"""VisionZip (CVPR 2025, arXiv 2412.04467): keeps what the vision tower attends to, and merges the rest.

Shape suffixes: C pools, N tokens of a pool, F dominant tokens, R other tokens, T targets, M merged tokens, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.selection import highest


@dataclass
class VisionZip(Pruner):
    """Keeps the tokens that the vision tower attends to most, and contextual tokens made of all others (section 3.2).

    Attention is that of the class token in the tower's feature layer or, without one, the mean of all patches. Of the
    other tokens, every so many-th is a target, and each of the rest joins the target whose key, averaged over the
    tower's heads, is most like its own by cosine. A contextual token is, as released, the target plus the mean of those
    that joined it: a sum, whose norm is up to twice that of other tokens.

    Differs from the released code: it merges before the projector, here projected tokens are merged, as other families
    have no projector that takes a patch by itself; and it keeps the class token too, which no prompt here holds.

    Args:
        dominant: share of the budget that goes to the tokens attended to; the authors have 54 of 64.
        contextual_last: whether contextual tokens follow all dominant ones of the pool, as released, for which slots
            move up, so that tokens have their own position ids only with `positions=renumber`; else each contextual
            token has its target's place.
    """

    layer: int = 0
    dominant: float = 54 / 64
    contextual_last: bool = True

    traits = Traits(
        positions="renumber", nested=False, shares_picks_per_frame=True, needs_vision=True, merges_tokens=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dominant <= 1:
            raise InputError(f"VisionZip: dominant={self.dominant} is no share: use a number from 0 to 1")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor | Selection:
        count = tokens_CND.shape[1]
        if k == count:
            return torch.arange(k, device=tokens_CND.device).expand(len(tokens_CND), k)
        vision = ctx.vision()
        ranked_CN = highest(vision.at_pools(vision.received, ctx.pools), count)
        first = int(self.dominant * k + 0.5)
        dominant_CF, others_CR = ranked_CN[:, :first].sort(dim=1).values, ranked_CN[:, first:].sort(dim=1).values
        every = max(1, others_CR.shape[1] // max(1, k - first))
        is_target_R = torch.zeros(others_CR.shape[1], dtype=torch.bool)
        is_target_R[: every * (k - first) : every] = True
        at_T, at_M = (at.nonzero().flatten().to(others_CR.device) for at in (is_target_R, ~is_target_R))
        targets_CT, merged_CM = others_CR.index_select(1, at_T), others_CR.index_select(1, at_M)
        keys_CND = normalize(vision.at_pools(vision.keys, ctx.pools), dim=-1)
        contextual_CTD = _merged(tokens_CND, keys_CND, targets_CT, merged_CM)
        picks_CK = torch.cat([dominant_CF, targets_CT], dim=1)
        rows_CKD = torch.cat([_of(tokens_CND, dominant_CF), contextual_CTD], dim=1)
        return Selection(picks_CK.sort(dim=1).values if self.contextual_last else picks_CK, rows_CKD)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the cosines of keys (at most 2 D a pair) and the sums of merged tokens."""
        targets = k - int(self.dominant * k + 0.5)
        return 2 * targets * (count - k) * channels + (count - k) * channels


def _merged(tokens_CND: Tensor, keys_CND: Tensor, targets_CT: Tensor, merged_CM: Tensor) -> Tensor:
    """Returns each target plus the mean of the tokens that join it, [C, T, D]."""
    if not targets_CT.shape[1]:
        return _of(tokens_CND, targets_CT)
    cosine_CMT = _of(keys_CND, merged_CM) @ _of(keys_CND, targets_CT).transpose(1, 2)
    target_T = torch.arange(targets_CT.shape[1], device=targets_CT.device)
    joins_CMT = (cosine_CMT.argmax(dim=2, keepdim=True) == target_T).to(tokens_CND)
    share_CMT = joins_CMT / joins_CMT.sum(dim=1, keepdim=True).clamp(min=1)
    return _of(tokens_CND, targets_CT) + share_CMT.transpose(1, 2) @ _of(tokens_CND, merged_CM)


def _of(states_CND: Tensor, at_CK: Tensor) -> Tensor:
    return states_CND.gather(1, at_CK[..., None].expand(-1, -1, states_CND.shape[2]))
