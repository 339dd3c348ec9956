"""Methods that cut several times, each cut among what the one before left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.methods.tfps import TFPS

S = TypeVar("S", bound="Stages")


@dataclass
class Stages(Pruner):
    """Base of methods that cut several times.

    With S cuts and a budget of k of N tokens, N * (k / N)^(i / S) are left after the i-th: each cut keeps the
    same share of what the one before left, and the last exactly k.

    Args:
        layers: tokens are dropped at the inputs of these decoder layers, ascending; None is where the
            authors cut, as shares of the decoder's depth.
    """

    layer: int = field(default=1, init=False, repr=False)  # `layers` say it all
    layers: Sequence[int] | None = None

    nested: ClassVar[bool] = False
    shares: ClassVar[tuple[float, ...]] = (1 / 4, 1 / 2, 3 / 4)
    """Of the decoder's depth, below each of the authors' cuts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is None:
            return
        name, self.layers = type(self).__name__, tuple(self.layers)
        first = 1 if self.needs_attention else 0
        if not all(isinstance(layer, int) and layer >= first for layer in self.layers):
            raise InputError(f"{name}: layers={list(self.layers)} must be decoder layers' indices, {first} or higher")
        if not self.layers or any(a >= b for a, b in zip(self.layers, self.layers[1:], strict=False)):
            raise InputError(f"{name}: layers={list(self.layers)} must be one or more layers in ascending order")

    def fit(self: S, depth: int) -> S:
        if self.layers is not None:
            return self
        layers: list[int] = []
        for share in self.shares:
            layers.append(max(layers[-1] + 1 if layers else 1, round(share * depth)))
        return replace(self, layers=tuple(layers))

    @property
    def cuts(self) -> tuple[int, ...]:
        if self.layers is None:
            raise InputError(f"{type(self).__name__}: layers=null needs the decoder's depth: call fit(depth) first")
        return tuple(self.layers)

    def sizes(self, k: int, count: int) -> list[int]:
        stages = len(self.cuts)
        return [round(count * (k / count) ** (stage / stages)) for stage in range(1, stages)] + [k]


@dataclass
class Staged(Stages):
    """Another method's choice made in several steps: the budget is reached at the last of the layers.

    Each cut asks the method anew, about the states that enter that layer. Where a method cuts by
    itself does not matter.

    Args:
        pruner: the method; its scope and dtype are used.
    """

    scope: str = field(default="", init=False, repr=False)
    dtype: str = field(default="", init=False, repr=False)
    pruner: Pruner = field(default_factory=TFPS)

    scopes: ClassVar[tuple[str, ...]] = ()
    """The method's."""

    def __post_init__(self) -> None:
        if self.pruner.merges or isinstance(self.pruner, Stages):
            kind = "merges tokens" if self.pruner.merges else "already cuts several times"
            raise InputError(f"Staged: pruner {type(self.pruner).__name__} {kind}: use one that only chooses, once")
        for name in ("scope", "dtype", "scopes", "positions", "needs_attention", "needs_vision", "drops"):
            setattr(self, name, getattr(self.pruner, name))
        super().__post_init__()

    def lacks(self, config: Any) -> str:
        return self.pruner.lacks(config)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor | Selection:
        return self.pruner.select(tokens_CND, k, ctx)

    def flops(self, count: int, k: int, channels: int) -> int:
        return self.pruner.flops(count, k, channels)
