"""From budgets to kept positions: what pruning does with a method's choice before the model is touched.

Shape suffixes: B batch rows, P prompt positions (padded), C pools, N tokens of a pool, K kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.reuse.shared_prefix import Beginning, part
from prune2drive.pruning.surgery.cut import Cut, gather
from prune2drive.pruning.surgery.prompt import Prompt
from prune2drive.token_map import TokenMap


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
        nominal_tokens: visual tokens that the keep ratios ask for, whatever they are taken to mean.
        raw_tokens: visual tokens that the method's own rule would have kept, where it has no budget; else empty.
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
    nominal_tokens: list[int] = field(default_factory=list)
    raw_tokens: list[int] = field(default_factory=list)
    select_flops: list[int] = field(default_factory=list)
    select_seconds: float = 0.0

    def clear(self) -> None:
        self.__dict__.update(Trace().__dict__)


def merged(hidden_BKD: Tensor, cut: Cut, pools: Sequence[Pool], picks: Sequence[Picks]) -> tuple[Tensor, Cut]:
    """The states with the rows that a method merged in their slots, and the cut with what each slot stands for.

    Args:
        hidden_BKD: states of what the cut left.
        cut: that cut.
        pools: what it left, at their places in `hidden_BKD`.
        picks: what the method said, in selection order.
    """
    hidden_BKD = hidden_BKD.clone()
    log_sizes_BK = cut.log_sizes_BK
    if log_sizes_BK is None:
        log_sizes_BK = hidden_BKD.new_zeros(hidden_BKD.shape[:2], dtype=torch.float32)
    weighs = cut.log_sizes_BK is not None
    for pool, picked in zip(pools, picks, strict=True):
        order_K = picked.picks_K.argsort()
        at_K = pool.at_N.to(hidden_BKD.device)
        if picked.rows_KD is not None:
            hidden_BKD[pool.row, at_K] = picked.rows_KD[order_K.to(picked.rows_KD.device)].to(hidden_BKD)
        if picked.sizes_K is not None:
            weighs = True
            log_sizes_BK[pool.row, at_K] = (
                picked.sizes_K[order_K.to(picked.sizes_K.device)].float().log().to(at_K.device)
            )
    return hidden_BKD, replace(cut, log_sizes_BK=log_sizes_BK) if weighs else cut


def choose(
    pruner: Pruner, hidden_BPD: Tensor, pools: Sequence[Pool], sizes: Sequence[int], context: Context
) -> list[Picks]:
    """What each pool keeps.

    Pools of one size are selected together; where the method's picks are nested, so are pools of
    different budgets.
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, (pool, size) in enumerate(zip(pools, sizes, strict=True)):
        groups[len(pool.at_N), 0 if pruner.nested else size].append(index)
    picks: dict[int, Picks] = {}
    for members in groups.values():
        mine = tuple(pools[index] for index in members)
        row_C = torch.tensor([pool.row for pool in mine])
        tokens_CND = gather(hidden_BPD, torch.stack([pool.at_N for pool in mine]), row_C)
        tokens_CND = tokens_CND.to(getattr(torch, pruner.dtype))
        found = pruner.select(tokens_CND, max(sizes[index] for index in members), replace(context, pools=mine))
        chosen = found if isinstance(found, Selection) else Selection(found)
        if (chosen.rows_CKD is not None and not pruner.merges) or (chosen.sizes_CK is not None and not pruner.weighs):
            raise InputError(f"{type(pruner).__name__} returns rows or sizes, but does not say so: set merges, weighs")
        for place, index in enumerate(members):
            picks[index] = Picks.of(chosen, place, sizes[index])
    return [picks[index] for index in range(len(pools))]


@dataclass(frozen=True)
class Picks:
    """What one pool keeps: indices in selection order, and what a method says of them beside (see `Selection`)."""

    picks_K: Tensor
    rows_KD: Tensor | None = None
    sizes_K: Tensor | None = None
    raw: int | None = None

    @classmethod
    def of(cls, chosen: Selection, place: int, size: int) -> Picks:
        parts = (chosen.rows_CKD, chosen.sizes_CK)
        rows, sizes = (None if part is None else part[place, :size] for part in parts)
        raw = None if chosen.raw_C is None else int(chosen.raw_C[place])
        return cls(chosen.picks_CK[place, :size].cpu(), rows, sizes, raw)


def kept_positions(real_BP: Tensor, pools: Sequence[Pool], picks: Sequence[Picks]) -> list[Tensor]:
    """Each row's kept positions in the batch as it is, ascending: all real ones but dropped candidates."""
    keep_BP = real_BP.cpu().clone()
    for pool, picked in zip(pools, picks, strict=True):
        keep_BP[pool.row, pool.at_N] = False
        keep_BP[pool.row, pool.at_N[picked.picks_K]] = True
    return [keep_P.nonzero().flatten() for keep_P in keep_BP]


def carry_out(
    layer: int,
    hidden_BPD: Tensor,
    real_BP: Tensor | None,
    pools: Sequence[Pool],
    picks: Sequence[Picks],
    starts: Sequence[int] = (),
    alike: Sequence[Beginning] | None = None,
) -> tuple[Tensor, Cut]:
    """Makes a cut: the states of what is left, and what that is of the positions there were.

    Args:
        layer: the cut's.
        hidden_BPD: what enters it.
        real_BP: True where that is no padding; None where none is.
        pools: what was chosen among.
        picks: what each of them keeps.
        starts: where each row's prompt begins in the batch before any cut.
        alike: how each of them begins, for rows that are to share it.
    """
    if real_BP is None:
        real_BP = torch.ones(hidden_BPD.shape[:2], dtype=torch.bool)
    kept = kept_positions(real_BP, pools, picks)
    blocks, beginnings = part(kept, starts, alike) if alike else ([kept], None)
    cut = Cut.at(blocks, hidden_BPD.device, layer, beginnings)
    return gather(hidden_BPD, cut.kept_BK), cut


def own_positions(prompt: Prompt, cuts: Sequence[Cut]) -> list[Tensor]:
    """What is left of each row's own prompt after the last cut, without padding, ascending."""
    if cuts:
        kept = [kept_K[real_K].cpu() for kept_K, real_K in zip(cuts[-1].kept_BK, cuts[-1].real_BK, strict=True)]
    elif prompt.mask_BP is not None:
        kept = [mask_P.nonzero().flatten() for mask_P in prompt.mask_BP.cpu()]
    else:
        kept = [torch.arange(prompt.length)] * len(prompt.maps)
    paddings = [0] * len(kept) if prompt.mask_BP is None else prompt.mask_BP.int().argmax(dim=1).tolist()
    return [at - padding for at, padding in zip(kept, paddings, strict=True)]


def left(pools: Sequence[Pool], picks: Sequence[Picks], cut: Cut) -> list[Pool]:
    """The pools of what a cut left, at their places in the shorter batch."""
    real_BK, kept_BK = cut.real_BK.cpu(), cut.kept_BK.cpu()
    places = [real_K.nonzero().flatten() for real_K in real_BK]
    kept = [kept_K[place_K] for kept_K, place_K in zip(kept_BK, places, strict=True)]
    after = []
    for pool, picked in zip(pools, picks, strict=True):
        order_K = picked.picks_K.sort().values
        at_K = places[pool.row][torch.searchsorted(kept[pool.row], pool.at_N[order_K])]
        after.append(replace(pool, at_N=at_K, of_N=pool.of_N[order_K]))
    return after


def record(
    trace: Trace,
    pruner: Pruner,
    layer: int,
    prompt: Prompt,
    pools: Sequence[Pool],
    picks: Sequence[Picks],
    channels: int,
) -> None:
    """Writes what a cut kept into the trace, and of the last one, camera by camera, which tokens these are."""
    rows = range(len(prompt.maps))
    trace.token_maps = list(prompt.maps)
    trace.full_tokens = [sum(token_map.counts.values()) for token_map in prompt.maps]
    trace.stages = trace.stages or [[] for _ in rows]
    trace.kept_tokens = [0 for _ in rows]
    raw: list[int | None] = [0 for _ in rows]
    for pool, picked in zip(pools, picks, strict=True):
        trace.select_flops[pool.row] += pruner.flops(len(pool.at_N), len(picked.picks_K), channels)
        before = raw[pool.row]
        raw[pool.row] = None if before is None or picked.raw is None else before + picked.raw
        trace.kept_tokens[pool.row] += len(picked.picks_K)
    trace.raw_tokens = [count for count in raw if count is not None]
    if pruner.drops:
        for stages, kept in zip(trace.stages, trace.kept_tokens, strict=True):
            stages.append((layer, kept))
    if layer == pruner.cuts[-1]:
        trace.picked = [{} for _ in rows]
        for pool, picked in zip(pools, picks, strict=True):
            trace.picked[pool.row] |= _by_camera(pool, pool.of_N[picked.picks_K])
        trace.kept = [{camera: picked.sort().values for camera, picked in row.items()} for row in trace.picked]


def _by_camera(pool: Pool, of_K: Tensor) -> dict[str, Tensor]:
    """Which tokens of each camera some of the pool's are, in the order given."""
    if len(pool.cameras) == 1:
        return {pool.cameras[0]: of_K}
    counts = torch.tensor([pool.token_map.counts[camera] for camera in pool.cameras])
    end_C = counts.cumsum(0)
    camera_K = torch.bucketize(of_K, end_C, right=True)
    order_K = camera_K.argsort(stable=True)
    within_K = of_K - (end_C - counts)[camera_K]
    sizes = torch.bincount(camera_K, minlength=len(counts)).tolist()
    return dict(zip(pool.cameras, within_K[order_K].split(sizes), strict=True))
