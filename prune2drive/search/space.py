"""What is searched: a few numbers in a box, and the keep ratios of the cameras that they stand for."""

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
    """Variables in [low, 1], one a camera, or one for a camera and its mirror image.

    Args:
        cameras: of the dataset.
        low: the smallest ratio of a camera (the paper's search begins at 0.02).
        symmetric: cameras whose names differ in LEFT and RIGHT share a variable.

    Raises:
        InputError: a `low` that leaves nothing to search.
    """

    cameras: tuple[str, ...]
    low: float = 0.02
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.low < HIGH:
            raise InputError(f"search.low={self.low}: the smallest ratio is between 0 and 1, e.g. 0.02")

    @cached_property
    def variables(self) -> dict[str, tuple[str, ...]]:
        """Variable -> the cameras it stands for."""
        found: dict[str, tuple[str, ...]] = {}
        for camera in self.cameras:
            name = re.sub("LEFT|RIGHT", "SIDE", camera) if self.symmetric else camera
            found[name] = (*found.get(name, ()), camera)
        return found

    @abstractmethod
    def ratios(self, values: Mapping[str, float]) -> dict[str, float]:
        """The keep ratio of each camera, in [low, 1]."""

    @abstractmethod
    def values(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """The variables' values that stand for such ratios.

        Raises:
            InputError: ratios that are not in the space.
        """

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """What makes the trials of two searches comparable."""

    def _by_camera(self, values: Mapping[str, float]) -> dict[str, float]:
        named = {camera: values[name] for name, cameras in self.variables.items() for camera in cameras}
        return {camera: named[camera] for camera in self.cameras}

    def _by_variable(self, ratios: Mapping[str, float]) -> dict[str, float]:
        if wrong := set(ratios) ^ set(self.cameras):
            raise InputError(f"search.candidates: {dict(ratios)} does not fit the cameras here ({', '.join(wrong)})")
        return {name: sum(ratios[each] for each in group) / len(group) for name, group in self.variables.items()}


@dataclass(frozen=True)
class Penalty(Space):
    """Every camera's ratio by itself; the objective pays for their sum (paper, section 3.3)."""

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
    """A fixed total shared between the cameras, fair against the same ratio for all of them.

    A variable is a camera's weight. Any weights in the box are ratios of the right total (`share_out`), so that
    every sampler can search it.

    Args:
        keep: mean of the cameras' ratios.
        tokens: of each camera, and
        total: how many of them to keep. Ratios then keep exactly that many (`whole_tokens`), whatever rounding a
            ratio by itself would meet; by default only their mean is right.

    Raises:
        InputError: a mean that no ratios in [low, 1] have.
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
            raise InputError(f"search.candidates: {dict(ratios)} is no share of a total")
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
    """The space of this name; the last two only matter where the total is fixed.

    Raises:
        InputError: there is none, or it is empty.
    """
    if name == "penalty":
        return Penalty(tuple(cameras), low, symmetric)
    if name == "simplex":
        return Simplex(tuple(cameras), low, symmetric, keep, tokens, total)
    raise InputError(f"search.space={name}: choose from penalty, simplex")


def share_out(weights: Mapping[str, float], keep: float, low: float) -> dict[str, float]:
    """Ratios in [low, 1] with mean `keep`, in proportion to the weights wherever these limits allow it.

    They are `clip(level * weight, low, 1)` for the level at which the mean is right (water-filling): their sum grows
    with the level, in straight lines between the levels at which a camera meets a limit, so it is interpolated.

    Args:
        weights: camera -> positive number.
        keep: in [low, 1].
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
    """Ratios near these that keep whole numbers of tokens, `total` in all and at least one of each camera.

    Each share is rounded down, and those with the largest remainders up: with few tokens a camera, rounding each by
    itself gives one allocation a tenth more than another.

    Args:
        ratios: camera -> keep ratio.
        tokens: camera -> tokens.
        total: between the number of cameras and that of all tokens.
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
