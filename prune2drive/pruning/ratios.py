"""Ratio policies: the share of tokens that each camera keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from prune2drive.cameras import camera_of
from prune2drive.errors import InputError
from prune2drive.files import first_file

SEARCHED_RATIOS = (Path("outputs/searched_ratios"), Path(__file__).resolve().parents[1] / "searched_ratios")
"""Folders of searched ratios, in the order in which they are looked at: the user's, then the package's."""


class RatioPolicy(ABC):
    """Base of all policies: gives every camera its keep ratio."""

    provenance: Mapping[str, Any] | None = None
    """Where searched ratios come from; None for ratios that nothing was searched for."""

    @abstractmethod
    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        """Returns the keep ratio in (0, 1] of each of these cameras.

        Raises:
            InputError: a camera without a ratio, or a ratio outside (0, 1].
        """

    def describe(self, cameras: Sequence[str]) -> dict[str, Any]:
        """Returns what a run's record says of the ratios of these cameras."""
        return dict(self.ratios(cameras))


class Allocator(RatioPolicy):
    """Base of policies whose ratios say how much the cameras of a sample keep in all; their tokens decide who keeps it.

    Shape suffixes: R samples, M tokens of all cameras, D channels, K tokens of the budget.
    """

    @abstractmethod
    def allocate(self, tokens_RMD: Tensor, counts: Mapping[str, int], k: int) -> Tensor:
        """Returns the camera, by its place in `counts`, on which each of k tokens is spent; [R, K].

        A smaller budget is shared by the beginning of the same order. Every camera is among the first entries, one
        for each camera, and comes no more often than it has tokens.

        Args:
            tokens_RMD: states that enter the first cut, camera after camera.
            counts: camera -> number of its tokens.
            k: budget of the sample, at least the number of cameras.
        """

    @abstractmethod
    def flops(self, counts: Mapping[str, int], k: int, channels: int) -> int:
        """Counts the floating point operations of sharing k tokens of one sample."""


@dataclass
class Uniform(RatioPolicy):
    """The same keep ratio for every camera.

    Args:
        keep: share of tokens retained, in (0, 1].

    Raises:
        InputError: a ratio outside (0, 1].
    """

    keep: float = 0.1

    def __post_init__(self) -> None:
        _check("ratios.keep", self.keep)

    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        return dict.fromkeys(cameras, float(self.keep))


@dataclass
class PerCamera(RatioPolicy):
    """A keep ratio for each camera, by name.

    Args:
        keep: camera -> share of tokens retained, in (0, 1]; a camera that no sample has is an error, not ignored. Where
            cameras are shown at several times, a camera's holds at all of them, but for views such as CAM_FRONT@1 that
            have their own.

    Raises:
        InputError: a ratio outside (0, 1].
    """

    keep: Mapping[str, float]

    def __post_init__(self) -> None:
        for camera, ratio in self.keep.items():
            _check(f"the keep ratio of {camera}", ratio)

    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        return of_cameras("keep ratio", self.keep, cameras)


@dataclass
class Adaptive(RatioPolicy):
    """Searched keep ratios, one a camera, read from a file with their provenance (paper, section 3.3).

    Args:
        file: YAML with `ratios` (camera -> keep ratio) and `provenance` (how they were found).
        command: the command that makes the file, for the error if there is none.
        name: `<model>_<dataset>`; without a file, `<name>.yaml` is looked for in `SEARCHED_RATIOS`.
    """

    file: str | None = None
    command: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        path = first_file(self.file, SEARCHED_RATIOS, f"{self.name}.yaml")
        if not path.is_file():
            raise InputError(
                f"ratios=adaptive: no searched ratios for this model and dataset ({path} is missing); "
                f"search them with `{self.command}`, write them there by hand as `ratios: {{CAM_FRONT: 0.2, ...}}`, "
                "or use ratios=uniform"
            )
        self.path = path
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, OSError, UnicodeError) as error:
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
            raise InputError(f"{self.path}: {error}") from None


def of_cameras(what: str, given: Mapping[str, float], cameras: Sequence[str]) -> dict[str, float]:
    """Returns the value given for each of these cameras; of a view of several, its own or else its camera's.

    Raises:
        InputError: a camera without a value, or a value for another camera.
    """
    known = {*cameras, *map(camera_of, cameras)}
    unknown = [camera for camera in given if camera not in known]
    missing = [camera for camera in cameras if camera not in given and camera_of(camera) not in given]
    if unknown:
        raise InputError(f"{what} for unknown camera {unknown[0]}: the cameras here are {', '.join(cameras)}")
    if missing:
        raise InputError(f"no {what} for camera {missing[0]}: {what}s are given for {', '.join(given)}")
    return {camera: float(given[camera] if camera in given else given[camera_of(camera)]) for camera in cameras}


def as_policy(keep: float | Mapping[str, float] | RatioPolicy) -> RatioPolicy:
    """Returns the policy that a keep ratio, a ratio for each camera, or a policy stands for."""
    if isinstance(keep, RatioPolicy):
        return keep
    return PerCamera(keep) if isinstance(keep, Mapping) else Uniform(keep)


def _check(name: str, ratio: float) -> None:
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 < ratio <= 1:
        raise InputError(f"{name} = {ratio} is outside (0, 1]: it is the share of tokens retained, e.g. 0.1")
