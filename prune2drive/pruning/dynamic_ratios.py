"""A budget that follows the scene: `ratios=dynamic` shares one total between the cameras of each sample.

Greedy farthest points spend the total token by token, each on the camera that has the token farthest from those taken
so far. Neither training nor the question is needed. Only how many tokens each camera gets is used: which ones is the
pruner's choice.

Shape suffixes: R samples, C cameras, M tokens of all cameras, N tokens of a camera, D channels, K tokens of the budget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from prune2drive.errors import InputError, check_choice
from prune2drive.pruning.ratios import Adaptive, Allocator, Uniform, of_cameras
from prune2drive.pruning.selection import METRICS, farthest_points, farthest_points_and_gaps

POOLS = ("joint", "radius")
STARTS = ("isolated", "centroid")
LEAST_WEIGHT = 1e-6
"""Smallest weight, the largest being 1: below it distances drown in rounding."""


@dataclass
class Dynamic(Allocator):
    """Keeps as many tokens in all as `Uniform`, shared between the cameras by what they show; at least 1 each.

    Args:
        keep: share of a sample's tokens retained.
        pool: `joint` measures distances between tokens of all cameras, so that what two cameras show is paid for once
            (the greedy rule of T-FPS over their union); `radius` within a camera only: each next token goes to the
            camera whose farthest token is farthest from its own.
        weights: camera -> factor of its tokens' distances, or `adaptive` for searched ratios; all 1 by default. Only
            their proportions matter.
        exponent: exponent of the weights; with 0 they do not matter.
        metric: distance, `cosine`, `l1` or `l2`.
        start: rule for the first token, of the pool or of each camera, as in `farthest_points`.
        file: file of searched ratios, as in `Adaptive`.
        command: command that makes this file, for the error where there is none.
        name: `<model>_<dataset>`, by which searched ratios are looked for without a file.
    """

    keep: float = 0.1
    pool: str = "joint"
    weights: Mapping[str, float] | str | None = None
    exponent: float = 0.5
    metric: str = "cosine"
    start: str = "isolated"
    file: str | None = None
    command: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        self._total, self._searched = Uniform(self.keep), None
        for name, choices in (("pool", POOLS), ("metric", METRICS), ("start", STARTS)):
            check_choice(f"ratios.{name}", getattr(self, name), choices)
        if not _is_number(self.exponent) or self.exponent < 0:
            raise InputError(f"ratios.exponent={self.exponent}: give a number, 0 (weights do not matter) or more")
        if self.weights == "adaptive":
            self._searched = Adaptive(self.file, self.command, self.name)
            self.provenance = self._searched.provenance
        elif isinstance(self.weights, Mapping):
            for camera, weight in self.weights.items():
                if not _is_number(weight) or weight <= 0:
                    raise InputError(f"ratios.weights: {camera} has {weight}; give a number above 0, e.g. 1.5")
        elif self.weights is not None:
            raise InputError(f"ratios.weights={self.weights}: give a mapping from camera to weight, adaptive or null")

    def ratios(self, cameras: Sequence[str]) -> dict[str, float]:
        """Returns the ratios that make up the sample's total."""
        self._weights(cameras)
        return self._total.ratios(cameras)

    def describe(self, cameras: Sequence[str]) -> dict[str, Any]:
        weights = None if self.weights is None else self._weights(cameras)
        return {"shared": float(self.keep), "pool": self.pool, "weights": weights}

    def allocate(self, tokens_RMD: Tensor, counts: Mapping[str, int], k: int) -> Tensor:
        weight_C = torch.tensor(list(self._weights(tuple(counts)).values())).to(tokens_RMD)
        order = joint_order if self.pool == "joint" else radius_order
        return order(tokens_RMD, list(counts.values()), k, weight_C, self.metric, self.start)

    def flops(self, counts: Mapping[str, int], k: int, channels: int) -> int:
        """Counts the distances of each pool (2 D per pair) and a minimum per step and token."""
        if self.pool == "joint":
            total = sum(counts.values())
            return 2 * total * total * channels + total * k
        steps = {count: min(count, k - len(counts) + 1) for count in counts.values()}
        return sum(2 * n * n * channels + n * steps[n] for n in counts.values())

    def _weights(self, cameras: Sequence[str]) -> dict[str, float]:
        """Returns each camera's weight to the power of the exponent, scaled so that the largest is 1."""
        if self._searched:
            given = self._searched.ratios(cameras)
        elif isinstance(self.weights, Mapping):
            given = of_cameras("weight", self.weights, cameras)
        else:
            given = dict.fromkeys(cameras, 1.0)
        most = max(given.values(), default=1.0)
        weights = {camera: (weight / most) ** self.exponent for camera, weight in given.items()}
        if weights and min(weights.values()) < LEAST_WEIGHT:
            raise InputError(f"ratios.exponent={self.exponent} makes a camera count next to nothing: lower it")
        return weights


def joint_order(tokens_RMD: Tensor, counts: Sequence[int], k: int, weight_C: Tensor, metric: str, start: str) -> Tensor:
    """Shares a budget by farthest points over the tokens of all cameras: one token each, then as they are picked.

    Args:
        tokens_RMD: the cameras' tokens, camera after camera.
        counts: number of tokens of each camera.
        k: budget, at least one token a camera.
        weight_C: factor of the distances of a camera's tokens.
        metric: distance, as in `farthest_points`.
        start: rule for the first token, as in `farthest_points`.

    Returns:
        The camera on which each token of the budget is spent, [R, K]; its beginning is a smaller budget's order.
    """
    owner_M = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(tokens_RMD.device)
    weight_RM = weight_C[owner_M].expand(len(tokens_RMD), -1)
    owner_RK = owner_M[farthest_points(tokens_RMD, k, metric, start, weight=weight_RM)]
    taken_RKC = torch.nn.functional.one_hot(owner_RK, len(counts)).cumsum(dim=1)
    is_first_RK = taken_RKC.gather(2, owner_RK[..., None]).squeeze(2) == 1
    later_RK = owner_RK.gather(1, is_first_RK.int().argsort(dim=1, stable=True))
    each_RC = torch.arange(len(counts), device=owner_RK.device).expand(len(owner_RK), -1)
    return torch.cat([each_RC, later_RK[:, : k - len(counts)]], dim=1)


def radius_order(
    tokens_RMD: Tensor, counts: Sequence[int], k: int, weight_C: Tensor, metric: str, start: str
) -> Tensor:
    """Shares a budget by the farthest points within each camera, those with the largest distance first.

    A camera's j-th farthest point lies at a distance from its first j - 1 that does not grow with j: taking always the
    largest of all cameras is the greedy rule of a pool without distances between cameras. Arguments and result are
    those of `joint_order`.
    """
    rows, cameras = len(tokens_RMD), len(counts)
    most = k - cameras + 1
    radius_RKC = tokens_RMD.new_full((rows, most, cameras), -inf)
    parts = tokens_RMD.split(list(counts), dim=1)
    for count in set(counts):
        mine = [camera for camera in range(cameras) if counts[camera] == count]
        together = torch.cat([parts[camera] for camera in mine])
        _, found = farthest_points_and_gaps(together, min(most, count), metric, start)
        for camera, found_RK in zip(mine, found.split(rows), strict=True):
            radius_RKC[:, : min(most, count), camera] = found_RK
    ranked = (radius_RKC * weight_C).flatten(1).argsort(dim=1, descending=True, stable=True)
    return ranked[:, :k] % cameras


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)
