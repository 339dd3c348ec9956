"""Staged pruning: lets a method that cuts once cut several times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.methods.tfps import TFPS
from prune2drive.pruning.stages import Stages


@dataclass
class Staged(Stages):
    """Reaches another method's budget in several cuts, each selecting anew from the states that enter its layer.

    Args:
        pruner: a method that cuts once; its scope and dtype are used, its own layer is not.

    Raises:
        InputError: a method that merges tokens or already cuts several times.
    """

    scope: str = field(default="", init=False, repr=False)
    dtype: str = field(default="", init=False, repr=False)
    pruner: Pruner = field(default_factory=TFPS)

    def __post_init__(self) -> None:
        if self.pruner.traits.merges_tokens or isinstance(self.pruner, Stages):
            kind = "merges tokens" if self.pruner.traits.merges_tokens else "already cuts several times"
            raise InputError(f"Staged: pruner {type(self.pruner).__name__} {kind}: use one that only chooses, once")
        self.scope, self.dtype = self.pruner.scope, self.pruner.dtype
        super().__post_init__()

    @property
    def traits(self) -> Traits:
        return replace(self.pruner.traits, nested=False, shares_picks_per_frame=False)

    def unsupported_reason(self, config: Any) -> str:
        return self.pruner.unsupported_reason(config)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor | Selection:
        return self.pruner.select(tokens_CND, k, ctx)

    def flops(self, count: int, k: int, channels: int) -> int:
        return self.pruner.flops(count, k, channels)

    def pool_flops(self, sizes: Sequence[int], k: int, channels: int) -> int:
        return self.pruner.pool_flops(sizes, k, channels)
