"""What prompts that are given again have in common: selection orders, and the frame that they begin with."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from prune2drive.pruning.base import Pruner
from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.reuse.shared_prefix import Beginning
from prune2drive.pruning.surgery.selecting import Picks, choose


@dataclass(frozen=True)
class Orders:
    """What a nested method picked of prompts that it is given again, all tokens in its order.

    The picks for a smaller budget are the first of those for a larger one.

    Args:
        known: orders found so far; grows.
        beginnings: sample id -> how its prompt begins. Prompts that begin alike share an order, if the method looks at
            nothing else, and the layers behind the cut read what is left of their beginnings once.
    """

    known: MutableMapping[tuple[str, ...], Picks] = field(default_factory=dict)
    beginnings: Mapping[str, Beginning] = field(default_factory=dict)

    def choose(
        self, pruner: Pruner, hidden_BPD: Tensor, pools: Sequence[Pool], sizes: Sequence[int], context: Context
    ) -> list[Picks]:
        """What each pool keeps, as `plan.choose` says; only orders that are not known are worked out, and whole."""
        if not pruner.nested or len(pruner.cuts) > 1:
            return choose(pruner, hidden_BPD, pools, sizes, context)
        keys = [self._key(pruner, pool) for pool in pools]
        missing = {key: pool for key, pool in zip(keys, pools, strict=True) if key not in self.known}
        if missing:
            new = list(missing.values())
            orders = choose(pruner, hidden_BPD, new, [len(pool.at_N) for pool in new], context)
            self.known.update(zip(missing, orders, strict=True))
        return [
            replace(self.known[key], picks_K=self.known[key].picks_K[:size])
            for key, size in zip(keys, sizes, strict=True)
        ]

    def alike(self, pruner: Pruner, sample_ids: Sequence[str], cache: Any) -> list[Beginning] | None:
        """How each row of a batch begins; None where rows cannot share what the method leaves of it."""
        is_shared = len(pruner.cuts) == 1 and not pruner.weighs and not (pruner.merges and pruner.sees_question)
        if not is_shared or cache is None or not all(name in self.beginnings for name in sample_ids):
            return None
        return [self.beginnings[name] for name in sample_ids]

    def _key(self, pruner: Pruner, pool: Pool) -> tuple[str, ...]:
        known = None if pruner.sees_question else self.beginnings.get(pool.sample_id)
        about = known.name if known else pool.sample_id
        return (repr(pruner), about, *pool.cameras)
