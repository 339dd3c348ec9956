"""Selection orders that were found before: the picks for a smaller budget are the first of those for a larger one."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from prune2drive.pruning.base import Context, Pool, Pruner
from prune2drive.pruning.plan import Picks, choose


@dataclass(frozen=True)
class Orders:
    """What a nested method picked of prompts that it is given again, all tokens in its order.

    Args:
        known: orders found so far; grows.
        prompts: sample id -> what its tokens' states depend on besides the sample, for methods that look at nothing
            else; ids that share it share an order.
    """

    known: MutableMapping[tuple[str, ...], Picks] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)

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

    def _key(self, pruner: Pruner, pool: Pool) -> tuple[str, ...]:
        about = pool.sample_id if pruner.sees_question else self.prompts.get(pool.sample_id, pool.sample_id)
        return (repr(pruner), about, *pool.cameras)
