"""What a pruning method is: where it cuts, over which pools of tokens, and which tokens it keeps.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.selection import highest
from prune2drive.sample import TokenMap

if TYPE_CHECKING:
    from prune2drive.pruning.vision import VisionTokens

SCOPES = ("per_camera", "global")


@dataclass(frozen=True)
class Pool:
    """The tokens one budget is spent on: one camera of one sample or, with `scope=global`, all of them.

    Args:
        sample_id: identifies the sample whatever its place in the batch.
        cameras: the cameras in the pool.
        row: the sample's row in the batch.
        at_N: positions of the tokens in the (padded) batch, as it is after earlier cuts.
        token_map: where the tokens lie in the cameras' grids.
        of_N: which of the pool's tokens before any cut these are.
    """

    sample_id: str
    cameras: tuple[str, ...]
    row: int
    at_N: Tensor
    token_map: TokenMap
    of_N: Tensor

    def whole(self, length: int) -> Tensor:
        """Positions of all the pool's tokens in the (padded) batch of `length` that was not cut yet."""
        at_N = torch.cat([self.token_map.positions(camera) for camera in self.cameras])
        return at_N + length - self.token_map.length

    def generator(self, seed: int) -> torch.Generator:
        """A CPU generator that depends on the seed, the sample and the cameras, and on nothing else."""
        key = f"{seed}/{self.sample_id}/{'+'.join(self.cameras)}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@dataclass(frozen=True)
class Context:
    """What a method may look at besides the tokens; positions are those of the batch as it is after earlier cuts.

    Args:
        pools: what each row of `tokens_CND` is.
        before: the layer before the cut; None where that is before the LLM.
        at: the layer whose input is cut.
        embeddings_BPD: what entered the LLM.
        prompt_BPD: the same of the whole prompt, before any cut.
        norm: the decoder's last norm.
        question_BP: True at the text behind the last image: the question and the end of the chat template.
        vision: the vision tower's view of the tokens, for methods that declare `needs_vision`.
        questions: what each row of the batch asks, in words, where the caller of `prune` said.
        notes: what a method wants to find again at the prompt's later cuts.
    """

    pools: tuple[Pool, ...]
    before: LayerView | None
    at: LayerView
    embeddings_BPD: Tensor
    prompt_BPD: Tensor
    norm: Callable[[Tensor], Tensor]
    question_BP: Tensor
    vision: Callable[[], VisionTokens]
    questions: Sequence[str] | None = None
    notes: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """What a method keeps, where that is more than indices.

    Args:
        picks_CK: slots to keep, in selection order, indices into each pool.
        rows_CKD: what the slots hold from now on, where tokens were merged; their own states by default.
        sizes_CK: how many tokens each slot stands for: attention to it is weighted so (proportional attention).
        raw_C: how many tokens the method's own rule would have kept, for those that have no budget.
    """

    picks_CK: Tensor
    rows_CKD: Tensor | None = None
    sizes_CK: Tensor | None = None
    raw_C: Sequence[int] | None = None


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
