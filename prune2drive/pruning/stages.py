"""The base of methods that cut several times, each cut among the tokens that the one before kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeVar

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner

S = TypeVar("S", bound="Stages")


@dataclass
class Stages(Pruner):
    """Base of methods that cut several times.

    With S cuts and a budget of k of N tokens, N * (k / N)^(i / S) remain after the i-th cut: each keeps the same share
    of what the one before kept, and the last exactly k.

    Args:
        layers: decoder layers at whose inputs tokens are dropped, ascending; None is where the authors cut, as
            fractions of the decoder's depth.

    Raises:
        InputError: layers that are out of range or not ascending.
    """

    layer: int = field(default=1, init=False, repr=False)  # `layers` says it instead
    layers: Sequence[int] | None = None

    default_depths: ClassVar[tuple[float, ...]] = (1 / 4, 1 / 2, 3 / 4)
    """Where the authors cut, as fractions of the decoder's depth."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is None:
            return
        name, self.layers = type(self).__name__, tuple(self.layers)
        first = int(self.traits.needs_attention)
        if not all(isinstance(layer, int) and layer >= first for layer in self.layers):
            raise InputError(f"{name}: layers={list(self.layers)} must be decoder layers' indices, {first} or higher")
        if not self.layers or any(a >= b for a, b in zip(self.layers, self.layers[1:], strict=False)):
            raise InputError(f"{name}: layers={list(self.layers)} must be one or more layers in ascending order")

    def resolve(self: S, depth: int) -> S:
        if self.layers is not None:
            return super().resolve(depth)  # type: ignore[return-value]  # itself
        layers: list[int] = []
        for fraction in self.default_depths:
            layers.append(max(layers[-1] + 1 if layers else 1, round(fraction * depth)))
        return replace(self, layers=tuple(layers)).resolve(depth)

    @property
    def cuts(self) -> tuple[int, ...]:
        if self.layers is None:
            raise InputError(f"{type(self).__name__}: layers=null needs the decoder's depth: call resolve(depth) first")
        return tuple(self.layers)

    def sizes(self, k: int, count: int) -> list[int]:
        stages = len(self.cuts)
        return [round(count * (k / count) ** (stage / stages)) for stage in range(1, stages)] + [k]
