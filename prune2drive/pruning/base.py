"""What a pruning method is: where it cuts, over which pools of tokens, and which tokens it keeps.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.selection import highest

SCOPES = ("per_camera", "global")


@dataclass
class Pruner(ABC):
    """Base of all methods.

    Args:
        layer: tokens are dropped at the input of this decoder layer; 0 is before the LLM.
        scope: `per_camera` spends each camera's budget within the camera, `global` spends their sum
            on one pool of all cameras.
        dtype: in which selection computes. Half precision picks other tokens than float32.
    """

    layer: int = 1
    scope: str = "per_camera"
    dtype: str = "float32"

    nested: ClassVar[bool] = True
    """Whether the picks for a smaller budget are the first of those for a larger one."""
    merges: ClassVar[bool] = False
    """Whether it changes what the kept slots hold."""
    positions: ClassVar[str] = "keep"
    """Where its authors have kept tokens' position ids from: `keep` or `renumber`."""
    needs_attention: ClassVar[bool] = False
    needs_vision: ClassVar[bool] = False
    scopes: ClassVar[tuple[str, ...]] = SCOPES
    drops: ClassVar[bool] = True
    """False only for the un-pruned reference, which ignores ratios."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.layer, int) or self.layer < 0:
            raise InputError(f"{name}: layer={self.layer} must be a decoder layer's index, 0 or higher")
        if self.needs_attention and self.layer == 0:
            raise InputError(f"{name}: layer=0 has no attention to score with: set layer to 1 or higher")
        if self.scope not in self.scopes:
            raise InputError(f"{name}: scope={self.scope!r} is not one of {', '.join(self.scopes)}")
        dtype = getattr(torch, self.dtype, None)
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputError(f"{name}: dtype={self.dtype!r} is no torch float type: use float32, bfloat16 or float16")

    def fit(self, depth: int) -> Pruner:
        """The method for a decoder of `depth` layers: itself, unless it cuts at shares of the depth."""
        return self

    def lacks(self, config: Any) -> str:
        """What a model lacks that these settings read, and what would work; empty where it lacks nothing.

        Args:
            config: the whole model's; may be a bare decoder's.
        """
        return ""

    @property
    def sees_question(self) -> bool:
        """Whether picks depend on more than the tokens themselves: on the question, or on which sample it is."""
        return True

    @property
    def weighs(self) -> bool:
        """Whether it tells how many tokens a slot stands for, which attention has to take into account."""
        return False

    @property
    def cuts(self) -> tuple[int, ...]:
        """The layers at whose inputs tokens are dropped, ascending."""
        return (self.layer,)

    def sizes(self, k: int, count: int) -> list[int]:
        """How many of a pool's `count` tokens are left after each cut; the last is k."""
        return [k]

    @abstractmethod
    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor | Selection:
        """The k tokens to keep of each pool, in selection order: indices [C, K], or more than these."""

    def flops(self, count: int, k: int, channels: int) -> int:
        """Floating point operations of selecting k of `count` tokens; 0 where none are worth counting."""
        return 0


@dataclass
class ScorePruner(Pruner):
    """A method that ranks tokens: the k highest scores are kept, ties going to the lowest index."""

    @abstractmethod
    def score(self, tokens_CND: Tensor, ctx: Context) -> Tensor:
        """Importance of each token; [C, N], higher is kept first."""

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        return highest(self.score(tokens_CND, ctx), k)
