"""Ratio policies: the share of tokens that each camera keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from prune2drive.errors import InputError


@runtime_checkable
class RatioPolicy(Protocol):
    """Anything that gives every camera its keep ratio."""

    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        """Keep ratio in (0, 1] of each of these cameras.

        Raises:
            InputError: a camera without a ratio, or a ratio outside (0, 1].
        """
        ...


@runtime_checkable
class Allocator(RatioPolicy, Protocol):
    """A policy whose ratios say how much the cameras of a sample keep in all: their tokens decide how it is shared.

    Shape suffixes: R samples, M tokens of all cameras, D channels, K tokens of the budget.
    """

    def spend(self, tokens_RMD: Tensor, counts: Mapping[str, int], k: int) -> Tensor:
        """On which camera, by its place in `counts`, each of k tokens is spent; [R, K].

        The share of a smaller budget is counted in the beginning of the same order. Every camera is among the first
        as many as there are cameras, and comes no more often than it has tokens.

        Args:
            tokens_RMD: states that enter the first cut, camera after camera.
            counts: camera -> how many of them are its.
            k: at least the number of cameras.
        """
        ...

    def flops(self, counts: Mapping[str, int], k: int, channels: int) -> int:
        """Floating point operations of sharing k tokens of one sample."""
        ...

    def describe(self, cameras: Sequence[str]) -> dict[str, Any]:
        """What stands for the ratios in a run's record."""
        ...


@dataclass
class Uniform:
    """The same keep ratio for every camera."""

    keep: float = 0.1

    def __post_init__(self) -> None:
        _check("ratios.keep", self.keep)

    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        return dict.fromkeys(cameras, float(self.keep))


@dataclass
class PerCamera:
    """A keep ratio per camera, by name.

    Args:
        keep: camera -> ratio; a camera that no sample has is an error, not ignored.
    """

    keep: Mapping[str, float]

    def __post_init__(self) -> None:
        for camera, ratio in self.keep.items():
            _check(f"the keep ratio of {camera}", ratio)

    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        return of_cameras("keep ratio", self.keep, cameras)


@dataclass
class Adaptive:
    """Searched keep ratios, one a camera, read from a file with their provenance (paper, section 3.3).

    Args:
        file: YAML with `ratios` (camera -> keep ratio) and `provenance` (how they were found).
        command: what makes the file, for the error where there is none.
    """

    file: str
    command: str = ""

    def __post_init__(self) -> None:
        path = Path(self.file)
        if not path.is_file():
            raise InputError(
                f"ratios=adaptive: no searched ratios for this model and dataset ({path} is missing); "
                f"search them with `{self.command}`, write them there by hand as `ratios: {{CAM_FRONT: 0.2, ...}}`, "
                "or use ratios=uniform"
            )
        try:
            content = OmegaConf.to_container(OmegaConf.load(path))
        except (YAMLError, OmegaConfBaseException, OSError, UnicodeError) as error:
            raise InputError(f"{path}: not readable as YAML ({str(error).splitlines()[0]})") from error
        content = content if isinstance(content, dict) else {}
        ratios, provenance = content.get("ratios"), content.get("provenance") or {}
        if not isinstance(ratios, dict) or not isinstance(provenance, dict):
            raise InputError(f"{path}: expected a mapping with `ratios` (camera -> keep ratio) and `provenance`")
        try:
            self.keep = PerCamera(ratios)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        self.provenance = provenance

    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        try:
            return self.keep.ratios(cameras)
        except InputError as error:
            raise InputError(f"{self.file}: {error}") from None


def of_cameras(what: str, given: Mapping[str, float], cameras: Sequence[str]) -> dict[str, float]:
    """What is given for each of these cameras.

    Raises:
        InputError: a camera without a value, or a value for another camera.
    """
    unknown = [camera for camera in given if camera not in cameras]
    missing = [camera for camera in cameras if camera not in given]
    if unknown:
        raise InputError(f"{what} for unknown camera {unknown[0]}: the cameras here are {', '.join(cameras)}")
    if missing:
        raise InputError(f"no {what} for camera {missing[0]}: {what}s are given for {', '.join(given)}")
    return {camera: float(given[camera]) for camera in cameras}


def as_policy(keep: float | Mapping[str, float] | RatioPolicy) -> RatioPolicy:
    """The policy that a number, a mapping or a policy stands for."""
    if isinstance(keep, RatioPolicy):
        return keep
    return PerCamera(keep) if isinstance(keep, Mapping) else Uniform(keep)


def _check(name: str, ratio: float) -> None:
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 < ratio <= 1:
        raise InputError(f"{name} = {ratio} is outside (0, 1]: it is the share of tokens retained, e.g. 0.1")
