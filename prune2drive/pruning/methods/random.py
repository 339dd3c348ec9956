"""Random tokens: the control that a method has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.pruning.base import Pruner
from prune2drive.pruning.context import Context


@dataclass
class RandomPruner(Pruner):
    """Draws tokens without replacement.

    A draw depends on the seed, the sample's id and the camera alone, so that neither the order of samples nor a resumed
    run changes it. Report the mean of at least three seeds.

    Args:
        seed: seed of the draws.
    """

    seed: int = 0

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        count = tokens_CND.shape[1]
        draws = [torch.randperm(count, generator=pool.generator(self.seed))[:k] for pool in ctx.pools]
        return torch.stack(draws).to(tokens_CND.device)
