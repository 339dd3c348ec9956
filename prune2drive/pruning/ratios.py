"""Ratio policies: the share of tokens that each camera keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Protocol, runtime_checkable

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
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
        unknown = [camera for camera in self.keep if camera not in cameras]
        missing = [camera for camera in cameras if camera not in self.keep]
        if unknown:
            raise InputError(f"keep ratio for unknown camera {unknown[0]}: the cameras here are {', '.join(cameras)}")
        if missing:
            raise InputError(f"no keep ratio for camera {missing[0]}: ratios are given for {', '.join(self.keep)}")
        return {camera: float(self.keep[camera]) for camera in cameras}


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


def as_policy(keep: float | Mapping[str, float] | RatioPolicy) -> RatioPolicy:
    """The policy that a number, a mapping or a policy stands for."""
    if isinstance(keep, RatioPolicy):
        return keep
    return PerCamera(keep) if isinstance(keep, Mapping) else Uniform(keep)


def _check(name: str, ratio: float) -> None:
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0 < ratio <= 1:
        raise InputError(f"{name} = {ratio} is outside (0, 1]: it is the share of tokens retained, e.g. 0.1")
