"""From token maps and ratios to kept positions: everything of pruning that is no model surgery.

Shape suffixes: B batch rows, P prompt positions (padded), C pools, N tokens of a pool, K kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Context, Pool, Pruner
from prune2drive.pruning.prompt import Prompt
from prune2drive.pruning.ratios import RatioPolicy
from prune2drive.pruning.selection import budget
from prune2drive.sample import TokenMap


@dataclass
class Trace:
    """What pruning did to the latest prompt; lists have one entry a sample (a row of the batch).

    Args:
        kept: camera -> kept indices within that camera, ascending.
        picked: the same in selection order.
        positions: all kept positions of the sample's own prompt, text included, ascending.
        full_tokens: visual tokens before pruning.
        kept_tokens: visual tokens after it.
        token_maps: where each sample's visual tokens lie.
        stages: each cut as (layer, visual tokens kept from there on).
        select_flops: floating point operations of choosing.
        select_seconds: time of choosing for the whole batch, part of the prefill.
    """

    kept: list[dict[str, Tensor]] = field(default_factory=list)
    picked: list[dict[str, Tensor]] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    full_tokens: list[int] = field(default_factory=list)
    kept_tokens: list[int] = field(default_factory=list)
    token_maps: list[TokenMap] = field(default_factory=list)
    stages: list[list[tuple[int, int]]] = field(default_factory=list)
    select_flops: list[int] = field(default_factory=list)
    select_seconds: float = 0.0

    def clear(self) -> None:
        self.__dict__.update(Trace().__dict__)


def budgets(pools: Sequence[Pool], pruner: Pruner, policy: RatioPolicy, rounding: str) -> list[int]:
    """How many tokens each pool keeps: the sum of its cameras' budgets."""
    if not pruner.drops:
        return [len(pool.at_N) for pool in pools]
    ratios: dict[tuple[str, ...], Mapping[str, float]] = {}
    sizes = []
    for pool in pools:
        cameras, counts = pool.token_map.cameras, pool.token_map.counts
        if cameras not in ratios:
            ratios[cameras] = policy.ratios(cameras)
        try:
            sizes.append(sum(budget(ratios[cameras][camera], counts[camera], rounding) for camera in pool.cameras))
        except ValueError as error:
            raise InputError(f"{'+'.join(pool.cameras)}: {error}") from None
    return sizes


def choose(
    pruner: Pruner,
    hidden_BPD: Tensor,
    pools: Sequence[Pool],
    sizes: Sequence[int],
    attention: Callable[[], Tensor],
) -> list[Tensor]:
    """Each pool's kept indices in selection order.

    Pools of one size are selected together; where the method's picks are nested, so are pools of
    different budgets.
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, (pool, size) in enumerate(zip(pools, sizes, strict=True)):
        groups[len(pool.at_N), 0 if pruner.nested else size].append(index)
    picks: list[Tensor] = [torch.empty(0, dtype=torch.long)] * len(pools)
    for members in groups.values():
        mine = tuple(pools[index] for index in members)
        rows_C1 = torch.tensor([[pool.row] for pool in mine], device=hidden_BPD.device)
        at_CN = torch.stack([pool.at_N for pool in mine]).to(hidden_BPD.device)
        tokens_CND = hidden_BPD[rows_C1, at_CN].to(getattr(torch, pruner.dtype))
        picks_CK = pruner.select(tokens_CND, max(sizes[index] for index in members), Context(mine, attention)).cpu()
        for index, picks_K in zip(members, picks_CK, strict=True):
            picks[index] = picks_K[: sizes[index]]
    return picks


def kept_positions(prompt: Prompt, pools: Sequence[Pool], picks: Sequence[Tensor]) -> list[Tensor]:
    """Each row's kept positions in the padded batch, ascending: all but padding and dropped candidates."""
    keep_BP = torch.ones(len(prompt.maps), prompt.length, dtype=torch.bool)
    if prompt.mask_BP is not None:
        keep_BP &= prompt.mask_BP.cpu()
    for pool, picks_K in zip(pools, picks, strict=True):
        keep_BP[pool.row, pool.at_N] = False
        keep_BP[pool.row, pool.at_N[picks_K]] = True
    return [keep_P.nonzero().flatten() for keep_P in keep_BP]


def record(
    trace: Trace, pruner: Pruner, prompt: Prompt, pools: Sequence[Pool], picks: Sequence[Tensor], channels: int
) -> None:
    """Writes what was kept into the trace, camera by camera."""
    trace.clear()
    trace.select_flops = [0] * len(prompt.maps)
    trace.token_maps = list(prompt.maps)
    trace.picked = [{} for _ in prompt.maps]
    for pool, picks_K in zip(pools, picks, strict=True):
        trace.select_flops[pool.row] += pruner.flops(len(pool.at_N), len(picks_K), channels)
        first = 0
        for camera in pool.cameras:
            size = pool.token_map.counts[camera]
            mine = (picks_K >= first) & (picks_K < first + size)
            trace.picked[pool.row][camera] = picks_K[mine] - first
            first += size
    trace.kept = [{camera: picked.sort().values for camera, picked in row.items()} for row in trace.picked]
    trace.full_tokens = [sum(token_map.counts.values()) for token_map in prompt.maps]
    trace.kept_tokens = [sum(map(len, row.values())) for row in trace.kept]
    trace.stages = [[(pruner.layer, kept)] if pruner.drops else [] for kept in trace.kept_tokens]
    paddings = [0] * len(prompt.maps) if prompt.mask_BP is None else prompt.mask_BP.int().argmax(dim=1).tolist()
    kept = kept_positions(prompt, pools, picks)
    trace.positions = [at - padding for at, padding in zip(kept, paddings, strict=True)]
