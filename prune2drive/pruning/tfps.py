"""T-FPS: token-wise farthest point sampling (Prune2Drive, arXiv 2508.13305, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Context, Pruner
from prune2drive.pruning.selection import METRICS, MODES, STARTS, farthest_points


@dataclass
class TFPS(Pruner):
    """Keeps, camera by camera, tokens that lie far apart in the decoder's hidden states.

    The defaults are the original implementation's, which differs from the paper's text: it starts at
    the most isolated token, not a random one, and cuts inside the LLM before layer 1. With
    `layer=0` it is DivPrune (arXiv 2503.02175) per camera.

    Args:
        metric: `cosine`, `l1` or `l2`.
        start: `isolated`, `centroid`, `random` or a token's index; see `farthest_points`.
        mode: `farthest`, or `nearest` for the paper's ablation.
        seed: of `start=random`; each sample and camera draws for itself.
    """

    metric: str = "cosine"
    start: str | int = "isolated"
    mode: str = "farthest"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric not in METRICS:
            raise InputError(f"TFPS: metric={self.metric!r} is not one of {', '.join(METRICS)}")
        if self.mode not in MODES:
            raise InputError(f"TFPS: mode={self.mode!r} is not one of {', '.join(MODES)}")
        if not isinstance(self.start, int) and self.start not in STARTS:
            raise InputError(f"TFPS: start={self.start!r} is not one of {', '.join(STARTS)} or a token's index")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        start: str | int | Tensor = self.start
        if isinstance(start, int) and not 0 <= start < tokens_CND.shape[1]:
            raise InputError(f"TFPS: start={start} is outside a camera's {tokens_CND.shape[1]} tokens, 0 the first")
        if start == "random":
            count = tokens_CND.shape[1]
            start = torch.cat([torch.randint(count, (1,), generator=pool.generator(self.seed)) for pool in ctx.pools])
        return farthest_points(tokens_CND, k, self.metric, start, self.mode)

    def flops(self, count: int, k: int, channels: int) -> int:
        """The distance matrix (2 D per pair) and one minimum per step and token."""
        return 2 * count * count * channels + count * k
