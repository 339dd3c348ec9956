"""What searched ratios have to beat: allocations of the same total that nobody had to search for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prune2drive.search.space import share_out

FRONT_HEAVY = {
    "CAM_FRONT": 2.0,
    "CAM_FRONT_LEFT": 1.2,
    "CAM_FRONT_RIGHT": 1.2,
    "CAM_BACK": 0.8,
    "CAM_BACK_LEFT": 0.4,
    "CAM_BACK_RIGHT": 0.4,
}
"""Most to where the car is heading, least to the sides behind it."""


def baselines(
    cameras: Sequence[str], keep: float, low: float, draws: int, seed: int
) -> dict[str, list[dict[str, float]]]:
    """Name -> allocations with mean ratio `keep`, whose scores are averaged.

    They are `uniform`, `random` (draws from the flat distribution over the simplex) and `front_heavy`, which is left
    out where the cameras have other names.
    """
    found = {"uniform": [dict.fromkeys(cameras, keep)]}
    rng = np.random.default_rng(seed)
    weights = [dict(zip(cameras, rng.exponential(size=len(cameras)).tolist(), strict=True)) for _ in range(draws)]
    if draws:
        found["random"] = [share_out(each, keep, low) for each in weights]
    if set(cameras) <= set(FRONT_HEAVY):
        found["front_heavy"] = [share_out({camera: FRONT_HEAVY[camera] for camera in cameras}, keep, low)]
    return found
