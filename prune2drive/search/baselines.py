"""Makes the baselines that searched keep ratios must beat: allocations of the same total made without a search."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from prune2drive.cameras import CAMERAS
from prune2drive.search.space import share_out, whole_tokens

FRONT_HEAVY = dict(zip(CAMERAS, (2.0, 1.2, 1.2, 0.8, 0.4, 0.4), strict=True))
"""Gives most to the direction of travel and least to the back-side cameras."""


def baselines(
    tokens: Mapping[str, int], total: int, low: float, draws: int, seed: int
) -> dict[str, list[dict[str, float]]]:
    """Returns name -> allocations (camera -> keep ratio) of `total` tokens, whose scores are averaged.

    They are `uniform`, `random` (`draws` samples, uniform over the simplex) and, for nuScenes' cameras, `front_heavy`.
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
