"""What a pruning method is: where it cuts, over which pools of tokens, and which tokens it keeps.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.selection import highest
from prune2drive.sample import TokenMap

SCOPES = ("per_camera", "global")


@dataclass(frozen=True)
class Pool:
    """The tokens one budget is spent on: one camera of one sample or, with `scope=global`, all of them.

    Args:
        sample_id: identifies the sample whatever its place in the batch.
        cameras: the cameras in the pool.
        row: the sample's row in the batch.
        at_N: prompt positions of the tokens in the (padded) batch.
        token_map: where the tokens lie in the cameras' grids.
    """

    sample_id: str
    cameras: tuple[str, ...]
    row: int
    at_N: Tensor
    token_map: TokenMap

    def generator(self, seed: int) -> torch.Generator:
        """A CPU generator that depends on the seed, the sample and the cameras, and on nothing else."""
        key = f"{seed}/{self.sample_id}/{'+'.join(self.cameras)}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass(frozen=True)
class Context:
    """What a method may look at besides the tokens.

    Args:
        pools: what each row of `tokens_CND` is.
        attention: computes the last prompt position's attention to all positions in the layer before
            the cut, averaged over heads, [B, P]; for methods that declare `needs_attention`.
    """

    pools: tuple[Pool, ...]
    attention: Callable[[], Tensor]


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
    needs_attention: ClassVar[bool] = False
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

    @abstractmethod
    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        """The k tokens to keep of each pool, in selection order; indices [C, K]."""

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
