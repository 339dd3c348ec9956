"""From budgets to kept positions: asks a method what each pool keeps, and applies it to the states.

Shape suffixes: B batch rows, P prompt positions (padded), C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.context import Context, Selection
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.surgery.cut import Cut, gather


@dataclass(frozen=True)
class Picks:
    """What one pool keeps.

    Args:
        picks_K: kept indices into the pool, in selection order.
        rows_KD: states of the kept slots from now on, where tokens were merged.
        sizes_K: number of tokens that each slot stands for, under proportional attention.
        raw: tokens that the method's own rule would have kept, where it has no budget.
    """

    picks_K: Tensor
    rows_KD: Tensor | None = None
    sizes_K: Tensor | None = None
    raw: int | None = None

    @classmethod
    def of(cls, selection: Selection, place: int, size: int) -> Picks:
        """Takes the first `size` picks of the pool at `place` of a selection, whose picks lie on the CPU."""
        rows, sizes = (
            None if part is None else part[place, :size] for part in (selection.rows_CKD, selection.sizes_CK)
        )
        raw = None if selection.raw_C is None else int(selection.raw_C[place])
        return cls(selection.picks_CK[place, :size], rows, sizes, raw)


def select_tokens(
    pruner: Pruner, hidden_BPD: Tensor, pools: Sequence[Pool], budgets: Sequence[int], context: Context
) -> list[Picks]:
    """Asks a method what each pool keeps.

    Pools with the same number of tokens and the same budget are selected together; where the method's picks are
    nested, so are pools with different budgets.

    Args:
        pruner: the method.
        hidden_BPD: states that enter the cut.
        pools: the pools to select from.
        budgets: tokens that each pool keeps.
        context: what else the method may read; its pools are filled in here.

    Raises:
        InputError: a method that merges tokens or weights attention without declaring it.
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, (pool, size) in enumerate(zip(pools, budgets, strict=True)):
        groups[len(pool.at_N), 0 if pruner.traits.nested else size].append(index)
    picks: dict[int, Picks] = {}
    for members in groups.values():
        together = tuple(pools[index] for index in members)
        row_C = torch.tensor([pool.row for pool in together])
        tokens_CND = gather(hidden_BPD, torch.stack([pool.at_N for pool in together]), row_C)
        tokens_CND = tokens_CND.to(getattr(torch, pruner.dtype))
        k = max(budgets[index] for index in members)
        selection = pruner.select(tokens_CND, k, replace(context, pools=together))
        if not isinstance(selection, Selection):
            selection = Selection(selection)
        _check_declared(pruner, selection)
        selection = replace(selection, picks_CK=selection.picks_CK.cpu())
        for place, index in enumerate(members):
            picks[index] = Picks.of(selection, place, budgets[index])
    return [picks[index] for index in range(len(pools))]


def _check_declared(pruner: Pruner, selection: Selection) -> None:
    for returned, trait in ((selection.rows_CKD, "merges_tokens"), (selection.sizes_CK, "proportional_attention")):
        if returned is not None and not getattr(pruner.traits, trait):
            what = "rows" if trait == "merges_tokens" else "sizes"
            raise InputError(f"{type(pruner).__name__} returns {what}, but its traits do not say {trait}=True")


def kept_positions(
    shape: torch.Size, real_BP: Tensor | None, pools: Sequence[Pool], picks: Sequence[Picks]
) -> list[Tensor]:
    """Returns each row's kept positions in the batch as it is, ascending: all real ones but dropped candidates.

    Args:
        shape: batch rows and positions.
        real_BP: False at the padding; None where there is none.
        pools: the pools that were selected from.
        picks: what each pool keeps.
    """
    keep_BP = torch.ones(shape, dtype=torch.bool) if real_BP is None else real_BP.cpu().clone()
    for pool, picked in zip(pools, picks, strict=True):
        keep_BP[pool.row, pool.at_N] = False
        keep_BP[pool.row, pool.at_N[picked.picks_K]] = True
    return [keep_P.nonzero().flatten() for keep_P in keep_BP]


def remaining_pools(pools: Sequence[Pool], picks: Sequence[Picks], cut: Cut) -> list[Pool]:
    """Returns the pools of the tokens that a cut kept, at their places in the shorter batch."""
    real_BK, kept_BK = cut.real_BK.cpu(), cut.kept_BK.cpu()
    places = [real_K.nonzero().flatten() for real_K in real_BK]
    kept = [kept_K[place_K] for kept_K, place_K in zip(kept_BK, places, strict=True)]
    after = []
    for pool, picked in zip(pools, picks, strict=True):
        order_K = picked.picks_K.sort().values
        at_K = places[pool.row][torch.searchsorted(kept[pool.row], pool.at_N[order_K])]
        after.append(replace(pool, at_N=at_K, of_N=pool.of_N[order_K]))
    return after


def write_merged(hidden_BKD: Tensor, cut: Cut, pools: Sequence[Pool], picks: Sequence[Picks]) -> tuple[Tensor, Cut]:
    """Puts merged tokens into their slots; returns the states, and the cut with the size of each slot.

    Args:
        hidden_BKD: states that the cut kept.
        cut: the cut, in prompt positions.
        pools: the remaining pools, at their places in `hidden_BKD`.
        picks: what each pool keeps, in selection order.
    """
    hidden_BKD, log_sizes_BK = hidden_BKD.clone(), cut.log_sizes_BK
    if rows := [picked.rows_KD for picked in picks if picked.rows_KD is not None]:
        _write(hidden_BKD, rows, [both for both in zip(pools, picks, strict=True) if both[1].rows_KD is not None])
    if sizes := [picked.sizes_K for picked in picks if picked.sizes_K is not None]:
        if log_sizes_BK is None:
            log_sizes_BK = hidden_BKD.new_zeros(hidden_BKD.shape[:2], dtype=torch.float32)
        sized = [both for both in zip(pools, picks, strict=True) if both[1].sizes_K is not None]
        _write(log_sizes_BK, [sizes_K.float().log() for sizes_K in sizes], sized)
    return hidden_BKD, replace(cut, log_sizes_BK=log_sizes_BK)


def _write(states: Tensor, values: Sequence[Tensor], slots: Sequence[tuple[Pool, Picks]]) -> None:
    """Writes values [K, ...] of pools, in selection order, to their places among states [B, K, ...]; in two copies."""
    at_M = torch.cat([pool.at_N + pool.row * states.shape[1] for pool, _ in slots]).to(states.device)
    starts = accumulate(map(len, values), initial=0)
    order_M = torch.cat([picked.picks_K.argsort() + start for (_, picked), start in zip(slots, starts, strict=False)])
    ordered = torch.cat(list(values)).index_select(0, order_M.to(states.device))
    states.flatten(0, 1).index_copy_(0, at_M, ordered.to(states))
