"""Selection orders that are kept from one run to the next: a smaller budget is the beginning of a larger one."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import replace

from torch import Tensor

from prune2drive.pruning.base import Pruner
from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.surgery.select import Picks, select_tokens

Orders = MutableMapping[tuple[str, ...], Picks]
"""The order in which a method picks all tokens of a pool, by method, prompt or frame, and cameras."""


def select_with_orders(
    orders: Orders, pruner: Pruner, hidden_BPD: Tensor, pools: Sequence[Pool], budgets: Sequence[int], context: Context
) -> list[Picks]:
    """Returns what each pool keeps, as `select_tokens` does; only unknown orders are computed, and whole.

    Args:
        orders: orders found so far; grows.
        pruner: the method.
        hidden_BPD: states that enter the cut.
        pools: the pools to select from.
        budgets: tokens that each pool keeps.
        context: what else the method may read.
    """
    if not pruner.traits.nested or len(pruner.cuts) > 1:
        return select_tokens(pruner, hidden_BPD, pools, budgets, context)
    keys = [(repr(pruner), pool.sample_id, *pool.cameras) for pool in pools]
    missing = {key: pool for key, pool in zip(keys, pools, strict=True) if key not in orders}
    if missing:
        new = list(missing.values())
        found = select_tokens(pruner, hidden_BPD, new, [len(pool.at_N) for pool in new], context)
        orders.update(zip(missing, found, strict=True))
    return [replace(orders[key], picks_K=orders[key].picks_K[:size]) for key, size in zip(keys, budgets, strict=True)]
