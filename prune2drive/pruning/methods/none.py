"""No pruning: the reference for all methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context


@dataclass
class NoPruner(Pruner):
    """Keeps every token, whatever the keep ratios say: it makes no cut."""

    traits = Traits(shares_picks_per_frame=True)
    cuts = ()

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        return torch.arange(k, device=tokens_CND.device).expand(len(tokens_CND), k)
