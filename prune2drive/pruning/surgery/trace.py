"""The trace: what pruning did to the latest batch of prompts.

Shape suffixes: B batch rows, P prompt positions (padded), K kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from prune2drive.pruning.base import Pruner
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.surgery.cut import Cut
from prune2drive.pruning.surgery.prompt import Prompt
from prune2drive.pruning.surgery.select import Picks
from prune2drive.token_map import TokenMap


@dataclass
class Trace:
    """What pruning did to the latest batch of prompts; lists have one entry a sample (a batch row).

    Args:
        kept: camera -> kept indices within that camera, ascending.
        picked: camera -> kept indices within that camera, in selection order.
        positions: all kept positions of the sample's own prompt, text included, ascending.
        full_tokens: visual tokens before pruning.
        kept_tokens: visual tokens after pruning.
        token_maps: where the sample's visual tokens lie.
        stages: each cut as (layer, visual tokens kept from there on).
        nominal_tokens: visual tokens that the keep ratios ask for, whatever a budget is taken to mean.
        raw_tokens: visual tokens that the method's own rule would have kept, where it has no budget; else empty.
        select_flops: floating point operations of the selection.
        select_seconds: time of the selection for the whole batch, a part of the prefill.
    """

    kept: list[dict[str, Tensor]] = field(default_factory=list)
    picked: list[dict[str, Tensor]] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    full_tokens: list[int] = field(default_factory=list)
    kept_tokens: list[int] = field(default_factory=list)
    token_maps: list[TokenMap] = field(default_factory=list)
    stages: list[list[tuple[int, int]]] = field(default_factory=list)
    nominal_tokens: list[int] = field(default_factory=list)
    raw_tokens: list[int] = field(default_factory=list)
    select_flops: list[int] = field(default_factory=list)
    select_seconds: float = 0.0

    def begin(self, prompt: Prompt, nominal_tokens: list[int]) -> None:
        """Starts with a new batch of prompts, of which everything is kept so far."""
        maps = prompt.maps
        self.token_maps, self.nominal_tokens = list(maps), nominal_tokens
        self.picked = [{camera: torch.arange(count) for camera, count in each.counts.items()} for each in maps]
        self.kept = [dict(picked) for picked in self.picked]
        self.positions = kept_prompt_positions(prompt, None)
        self.full_tokens = [sum(each.counts.values()) for each in maps]
        self.kept_tokens = list(self.full_tokens)
        self.stages = [[] for _ in maps]
        self.raw_tokens, self.select_flops, self.select_seconds = [], [0] * len(maps), 0.0

    def repeat(self, rows: Sequence[int]) -> None:
        """Turns the entries of some prompts into those of a batch in which each row is one of these prompts."""
        for part in fields(self):
            entries = getattr(self, part.name)
            if isinstance(entries, list) and entries:
                setattr(self, part.name, [entries[row] for row in rows])

    def add_cut(self, pruner: Pruner, layer: int, pools: Sequence[Pool], picks: Sequence[Picks], channels: int) -> None:
        """Adds a cut: what it kept of each sample and, for the last one, which tokens of each camera.

        Args:
            pruner: the method, resolved.
            layer: the cut's layer.
            pools: the pools that were selected from.
            picks: what each pool keeps.
            channels: width of the hidden states; 0 where nothing had to be selected.
        """
        rows = range(len(self.token_maps))
        self.kept_tokens = [0 for _ in rows]
        raw: list[int | None] = [0 for _ in rows]
        for pool, picked in zip(pools, picks, strict=True):
            self.select_flops[pool.row] += pruner.pool_flops(pool.sizes, len(picked.picks_K), channels)
            before = raw[pool.row]
            raw[pool.row] = None if before is None or picked.raw is None else before + picked.raw
            self.kept_tokens[pool.row] += len(picked.picks_K)
        self.raw_tokens = [count for count in raw if count is not None]
        for stages, kept in zip(self.stages, self.kept_tokens, strict=True):
            stages.append((layer, kept))
        if layer == pruner.cuts[-1]:
            self.picked = [{} for _ in rows]
            for pool, picked in zip(pools, picks, strict=True):
                self.picked[pool.row] |= _by_camera(pool, pool.of_N[picked.picks_K])
            self.kept = [{camera: picked.sort().values for camera, picked in row.items()} for row in self.picked]


def kept_prompt_positions(prompt: Prompt, cut: Cut | None) -> list[Tensor]:
    """Returns the kept positions of each row's own prompt, without padding, ascending.

    Args:
        prompt: the batch of prompts.
        cut: the last cut; None before any.
    """
    if cut:
        kept = [kept_K[real_K].cpu() for kept_K, real_K in zip(cut.kept_BK, cut.real_BK, strict=True)]
    elif prompt.mask_BP is not None:
        kept = [mask_P.nonzero().flatten() for mask_P in prompt.mask_BP.cpu()]
    else:
        kept = [torch.arange(prompt.length)] * len(prompt.maps)
    paddings = [0] * len(kept) if prompt.mask_BP is None else prompt.mask_BP.int().argmax(dim=1).tolist()
    return [at - padding for at, padding in zip(kept, paddings, strict=True)]


def _by_camera(pool: Pool, of_K: Tensor) -> dict[str, Tensor]:
    """Splits indices into a pool by camera, in the order given; indices within the camera."""
    if len(pool.cameras) == 1:
        return {pool.cameras[0]: of_K}
    counts = torch.tensor([pool.token_map.counts[camera] for camera in pool.cameras])
    end_C = counts.cumsum(0)
    camera_K = torch.bucketize(of_K, end_C, right=True)
    order_K = camera_K.argsort(stable=True)
    within_K = of_K - (end_C - counts)[camera_K]
    sizes = torch.bincount(camera_K, minlength=len(counts)).tolist()
    return dict(zip(pool.cameras, within_K[order_K].split(sizes), strict=True))
