"""Maps the variables of a search to the keep ratios of the cameras."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from prune2drive.errors import InputError

HIGH = 1.0


@dataclass(frozen=True)
class Space(ABC):
    """Maps variables in [low, 1], one per camera or pair of mirrored cameras, to keep ratios.

    Args:
        cameras: names of the dataset's cameras.
        low: the smallest keep ratio of a camera (0.02 in the paper).
        symmetric: whether cameras whose names differ in LEFT and RIGHT share a variable.

    Raises:
        InputError: `low` is not between 0 and 1.
    """

    cameras: tuple[str, ...]
    low: float = 0.02
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.low < HIGH:
            raise InputError(f"search.low={self.low}: use a number between 0 and 1, e.g. 0.02")

    @cached_property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """Returns variable -> the cameras it stands for."""
        found: dict[str, tuple[str, ...]] = {}
        for camera in self.cameras:
            name = re.sub("LEFT|RIGHT", "SIDE", camera) if self.symmetric else camera
            found[name] = (*found.get(name, ()), camera)
        return found

    @abstractmethod
    def ratios(self, values: Mapping[str, float]) -> dict[str, float]:
        """Returns camera -> keep ratio, in [low, 1]."""

    @abstractmethod
    def values(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """Returns values of the variables that stand for keep ratios.

        Raises:
            InputError: the ratios are not in the space.
        """

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Returns the settings that must be equal for trials of two searches to be comparable."""

    def _by_camera(self, values: Mapping[str, float]) -> dict[str, float]:
        named = {camera: values[name] for name, cameras in self.variables.items() for camera in cameras}
        return {camera: named[camera] for camera in self.cameras}

    def _by_variable(self, ratios: Mapping[str, float]) -> dict[str, float]:
        if wrong := set(ratios) ^ set(self.cameras):
            raise InputError(f"search.candidates: {dict(ratios)}: missing or unknown cameras {', '.join(wrong)}")
        return {name: sum(ratios[each] for each in group) / len(group) for name, group in self.variables.items()}


@dataclass(frozen=True)
class Penalty(Space):
    """Searches all keep ratios independently; the objective charges for their sum (paper, section 3.3)."""

    def ratios(self, values: Mapping[str, float]) -> dict[str, float]:
        return self._by_camera(values)

    def values(self, ratios: Mapping[str, float]) -> dict[str, float]:
        values = self._by_variable(ratios)
        if not all(self.low <= value <= HIGH for value in values.values()):
            raise InputError(f"search.candidates: {dict(ratios)} is outside [{self.low}, 1]")
        return values

    def describe(self) -> dict[str, object]:
        return {"space": "penalty", "cameras": list(self.cameras), "low": self.low, "symmetric": self.symmetric}


@dataclass(frozen=True)
class Simplex(Space):
    """Shares a fixed total between the cameras, for a fair comparison with uniform keep ratios.

    A variable is a camera's weight. Any weights in [low, 1] give ratios of the same total, so every sampler applies.

    Args:
        keep: mean keep ratio of the cameras.
        tokens: camera -> visual tokens; None fixes the mean keep ratio, but not the number of kept tokens.
        total: number of visual tokens that all cameras together keep, where `tokens` is given.

    Raises:
        InputError: no ratios in [low, 1] have the mean `keep`.
    """

    keep: float = 0.1
    tokens: Mapping[str, int] | None = None
    total: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.keep <= HIGH:
            raise InputError(f"search.keep={self.keep}: no ratios from search.low={self.low} to 1 have this mean")

    def ratios(self, values: Mapping[str, float]) -> dict[str, float]:
        ratios = share_out(self._by_camera(values), self.keep, self.low)
        return whole_tokens(ratios, self.tokens, self.total) if self.tokens else ratios

    def values(self, ratios: Mapping[str, float]) -> dict[str, float]:
        values = self._by_variable(ratios)
        most = max(values.values())
        if not (most > 0 and min(values.values()) >= 0):
            raise InputError(f"search.candidates: {dict(ratios)}: use ratios of 0 or more, not all 0")
        return {name: max(self.low, value / most) for name, value in values.items()}

    def describe(self) -> dict[str, object]:
        fixed = {"cameras": list(self.cameras), "low": self.low, "symmetric": self.symmetric}
        return {"space": "simplex", "keep": self.keep, "total": self.total or None, **fixed}


def make_space(
    name: str,
    cameras: Sequence[str],
    keep: float = 0.1,
    low: float = 0.02,
    symmetric: bool = False,
    tokens: Mapping[str, int] | None = None,
    total: int = 0,
) -> Space:
    """Returns the space called `name`; `keep`, `tokens` and `total` concern only the simplex.

    Raises:
        InputError: the name is unknown, or no ratios are in the space.
    """
    if name == "penalty":
        return Penalty(tuple(cameras), low, symmetric)
    if name == "simplex":
        return Simplex(tuple(cameras), low, symmetric, keep, tokens, total)
    raise InputError(f"search.space={name}: choose from penalty, simplex")


def share_out(weights: Mapping[str, float], keep: float, low: float) -> dict[str, float]:
    """Returns keep ratios in [low, 1] with mean `keep`, in proportion to the weights where the limits allow.

    A ratio is `clip(level * weight, low, 1)` for the level that gives this mean (water-filling). The sum of the ratios
    is linear between the levels at which a camera meets a limit, and is interpolated there.

    Args:
        weights: camera -> positive weight.
        keep: mean keep ratio, in [low, 1].
        low: smallest keep ratio.
    """
    total = keep * len(weights)

    def at(level: float) -> dict[str, float]:
        return {camera: min(HIGH, max(low, level * weight)) for camera, weight in weights.items()}

    bends = sorted({limit / weight for weight in weights.values() for limit in (low, HIGH)})
    first = max((level for level in bends if sum(at(level).values()) <= total), default=bends[0])
    after = min((level for level in bends if level > first), default=first)
    below, above = at(first), at(after)
    rise = sum(above.values()) - sum(below.values())
    share = (total - sum(below.values())) / rise if rise > 0 else 0.0
    return {camera: min(HIGH, max(low, below[camera] + share * (above[camera] - below[camera]))) for camera in weights}


def whole_tokens(ratios: Mapping[str, float], tokens: Mapping[str, int], total: int) -> dict[str, float]:
    """Returns keep ratios close to given ones that keep exactly `total` tokens, at least one per camera.

    Shares are rounded down, except those with the largest remainders. Rounded independently, the totals of two
    allocations can differ by a tenth where cameras have few tokens.

    Args:
        ratios: camera -> keep ratio.
        tokens: camera -> visual tokens.
        total: number of visual tokens to keep, at least one per camera.
    """
    scale = total / sum(ratios[camera] * tokens[camera] for camera in ratios)
    shares = {camera: min(tokens[camera], max(1.0, scale * ratios[camera] * tokens[camera])) for camera in ratios}
    kept = {camera: int(share) for camera, share in shares.items()}
    while sum(kept.values()) < total:
        kept[max((each for each in kept if kept[each] < tokens[each]), key=lambda each: shares[each] - kept[each])] += 1
    while sum(kept.values()) > total:
        kept[min((each for each in kept if kept[each] > 1), key=lambda each: shares[each] - kept[each])] -= 1
    # Rounded up, so that no rounding of the budget loses a token.
    return {camera: min(HIGH, math.ceil(1e6 * kept[camera] / tokens[camera]) / 1e6) for camera in ratios}
