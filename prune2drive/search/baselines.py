"""What searched ratios have to beat: allocations of the same total that nobody had to search for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prune2drive.cameras import CAMERAS
from prune2drive.search.space import share_out, whole_tokens

FRONT_HEAVY = dict(zip(CAMERAS, (2.0, 1.2, 1.2, 0.8, 0.4, 0.4), strict=True))
"""Most to where the car is heading, least to the sides behind it."""


def baselines(
    tokens: Mapping[str, int], total: int, low: float, draws: int, seed: int
) -> dict[str, list[dict[str, float]]]:
    """Name -> allocations of `total` tokens, whose scores are averaged.

    They are `uniform`, `random` (draws from the flat distribution over the simplex) and `front_heavy`, which is left
    out where the cameras have other names.
    """
    cameras, keep = list(tokens), total / sum(tokens.values())
    rng = np.random.default_rng(seed)
    weights = {"uniform": [dict.fromkeys(cameras, 1.0)]}
    if draws:
        weights["random"] = [
            dict(zip(cameras, rng.exponential(size=len(cameras)).tolist(), strict=True)) for _ in range(draws)
        ]
    if set(cameras) <= set(FRONT_HEAVY):
        weights["front_heavy"] = [{camera: FRONT_HEAVY[camera] for camera in cameras}]
    return {
        name: [whole_tokens(share_out(each, keep, low), tokens, total) for each in several]
        for name, several in weights.items()
    }
