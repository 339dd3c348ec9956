"""The base of pruning methods: where a method cuts, over which pools of tokens, and which tokens it keeps.

Shape suffixes: C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prune2drive.errors import InputError, check_choice
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.selection import highest

SCOPES = ("per_camera", "over_time", "global")


@dataclass(frozen=True)
class Traits:
    """Declares what a method needs and does; the defaults are those of a method that reads nothing but the tokens.

    Args:
        scopes: the values of `scope` that the method works with.
        positions: what its authors do with the position ids of kept tokens: `keep` or `renumber`.
        nested: whether the picks for a smaller budget are the first of those for a larger one.
        shares_picks_per_frame: whether all questions about a frame keep the same tokens: picks depend neither on the
            question nor on the sample's id.
        reads_other_cameras: whether a camera's picks depend on other cameras' tokens with `scope=per_camera` too.
        needs_attention: whether it reads the attention of the decoder layer before the cut, so that layer 0 has none.
        needs_vision: whether it reads the vision tower's attention and features.
        resizes_images: whether it shows the vision tower smaller images, whose shape `image_shape` gives.
        merges_tokens: whether it changes the states of kept slots.
        proportional_attention: whether it says how many tokens a kept slot stands for, by which attention to the slot
            is weighted (PACT, arXiv 2504.08966).
    """

    scopes: tuple[str, ...] = SCOPES
    positions: str = "keep"
    nested: bool = True
    shares_picks_per_frame: bool = False
    reads_other_cameras: bool = False
    needs_attention: bool = False
    needs_vision: bool = False
    resizes_images: bool = False
    merges_tokens: bool = False
    proportional_attention: bool = False


@dataclass
class Pruner(ABC):
    """Base of all methods.

    Args:
        layer: decoder layer at whose input tokens are dropped; 0 is before the LLM.
        scope: `per_camera` spends each camera's budget within the camera, at each time by itself; `over_time` spends
            the sum of a camera's budgets on one pool of all its times; `global` on one pool of all cameras.
        dtype: float type in which selection computes; half precision picks other tokens than float32.

    Raises:
        InputError: a value that the method cannot have.
    """

    layer: int = 1
    scope: str = "per_camera"
    dtype: str = "float32"

    @property
    def traits(self) -> Traits:
        """What the method needs and does; a subclass overrides it by a class attribute `traits = Traits(...)`."""
        return Traits()

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.layer, int) or self.layer < 0:
            raise InputError(f"{name}: layer={self.layer} must be a decoder layer's index, 0 or higher")
        if self.traits.needs_attention and self.layer == 0:
            raise InputError(f"{name}: layer=0 has no attention to score with: set layer to 1 or higher")
        check_choice("pruner.scope", self.scope, self.traits.scopes)
        dtype = getattr(torch, self.dtype, None)
        if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputError(f"{name}: dtype={self.dtype!r} is no torch float type: use float32, bfloat16 or float16")

    @property
    def cuts(self) -> tuple[int, ...]:
        """The decoder layers at whose inputs tokens are dropped, ascending; none for a method that drops nothing."""
        return (self.layer,)

    def resolve(self, depth: int) -> Pruner:
        """Returns the method with its cuts as layers of a decoder of `depth` layers.

        Raises:
            InputError: a cut behind the last layer.
        """
        if self.cuts and self.cuts[-1] >= depth:
            raise InputError(f"pruner.layer={self.cuts[-1]}: the model's decoder has layers 0 to {depth - 1}")
        return self

    def unsupported_reason(self, config: Any) -> str:
        """Says what a model lacks that the method reads, and what would work; empty where nothing is missing.

        Args:
            config: the model's configuration; may be a bare decoder's.
        """
        return ""

    def image_shape(self, k: int, count: int) -> tuple[int, int]:
        """Returns the rows and columns of tokens that a camera's image of `count` tokens has instead, k at most."""
        raise NotImplementedError(f"{type(self).__name__} says resizes_images=True and has no image_shape")

    def sizes(self, k: int, count: int) -> list[int]:
        """Returns how many of a pool's `count` tokens remain after each cut; the last is the budget k."""
        return [k] * len(self.cuts)

    @abstractmethod
    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor | Selection:
        """Selects k tokens of each pool.

        Args:
            tokens_CND: hidden states of the pools' tokens.
            k: budget of each pool, 1 <= k <= N.
            ctx: whatever else a method may read.

        Returns:
            Kept indices in selection order [C, K], or a `Selection` that says more.
        """

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the floating point operations of selecting k of `count` tokens; 0 where none are worth counting."""
        return 0

    def pool_flops(self, sizes: Sequence[int], k: int, channels: int) -> int:
        """Counts those of selecting k tokens of a pool whose cameras have `sizes` tokens."""
        return self.flops(sum(sizes), k, channels)


@dataclass
class ScorePruner(Pruner):
    """Base of methods that rank tokens: the k highest scores are kept, ties going to the lowest index."""

    @abstractmethod
    def score(self, tokens_CND: Tensor, ctx: Context) -> Tensor:
        """Scores each token; [C, N], higher is kept first."""

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        return highest(self.score(tokens_CND, ctx), k)
