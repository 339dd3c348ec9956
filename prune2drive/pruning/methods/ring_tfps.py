"""Ring-aware T-FPS, after ST-Prune (arXiv 2604.19145): neighbouring cameras need not keep the same thing twice.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, M tokens of a neighbour, D channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from prune2drive.cameras import LAYOUT, camera_of, time_of, view_name
from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context, moved
from prune2drive.pruning.question_relevance import scaled
from prune2drive.pruning.selection import farthest_points

RING = (*LAYOUT[0], *LAYOUT[1])
"""The cameras of nuScenes' rig, clockwise."""


@dataclass
class RingTFPS(Pruner):
    """Selects by farthest points in each camera; tokens like those of the neighbour on the left count as less far.

    A token's distances are multiplied by 1 - `penalty` * likeness: its largest cosine with a token of the next camera
    counter-clockwise, both as they enter the LLM, scaled to 0..1 in the pool. Looking to one side only, what two
    cameras show is held against one of them. Cameras of other names are a ring in the order of the prompt. Neither the
    question nor what the neighbour keeps is read.

    ST-Prune was known to us by its abstract only: this is its idea, no reproduction.

    Args:
        penalty: from 0, T-FPS, to 1, at which the token most like the neighbour's comes last.
    """

    penalty: float = 0.5

    traits = Traits(scopes=("per_camera",), shares_picks_per_frame=True, reads_other_cameras=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.penalty <= 1:
            raise InputError(f"RingTFPS: penalty={self.penalty} is no share: use a number from 0 to 1")

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        likeness_CN = likeness_to_neighbours(ctx)
        weight_CN = 1 - self.penalty * scaled(likeness_CN, likeness_CN).to(tokens_CND)
        return farthest_points(tokens_CND, k, weight=weight_CN.clamp(min=torch.finfo(weight_CN.dtype).eps))

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts cosines with the neighbour, the distance matrix (2 D a pair), and one minimum a step and token."""
        return 4 * count * count * channels + count * k


def likeness_to_neighbours(ctx: Context) -> Tensor:
    """Returns each token's largest cosine with a token of the neighbour, 0 where there is none; [C, N]."""
    tokens_CND = normalize(ctx.of_pools(ctx.embeddings_BPD).float(), dim=-1)
    before = [neighbour(pool.cameras[0], pool.token_map.cameras) for pool in ctx.pools]
    length = ctx.prompt_BPD.shape[1]
    at = [
        torch.empty(0, dtype=torch.long) if camera is None else replace(pool, cameras=(camera,)).whole(length)
        for pool, camera in zip(ctx.pools, before, strict=True)
    ]
    likeness_CN = tokens_CND.new_zeros(tokens_CND.shape[:2])
    for index, (pool, at_M) in enumerate(zip(ctx.pools, moved(at, tokens_CND.device), strict=True)):
        if len(at_M):
            other_MD = normalize(ctx.prompt_BPD[pool.row].index_select(0, at_M).float(), dim=-1)
            likeness_CN[index] = (tokens_CND[index] @ other_MD.T).amax(dim=1)
    return likeness_CN


def neighbour(camera: str, cameras: tuple[str, ...]) -> str | None:
    """Returns the next camera counter-clockwise, at the same time; None where the prompt does not show it."""
    shown = tuple(dict.fromkeys(map(camera_of, cameras)))
    ring = RING if set(shown) <= set(RING) else shown
    before = view_name(ring[ring.index(camera_of(camera)) - 1], time_of(camera))
    return before if before in cameras and before != camera else None
