"""Selection orders that are kept from one run to the next: a smaller budget is the beginning of a larger one."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from prune2drive.pruning.base import Pruner
from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.reuse.shared_prefix import PromptPrefix
from prune2drive.pruning.surgery.select import Picks, select_tokens


@dataclass(frozen=True)
class SelectionCache:
    """The order in which a nested method picks all tokens of prompts that it is given again.

    Args:
        known: orders found so far, by method, frame or sample, and cameras; grows.
        prefixes: sample id -> how its prompt begins. Prompts with the same prefix share an order, if the method's picks
            are the same for all questions about a frame, and are read together up to where they part.
    """

    known: MutableMapping[tuple[str, ...], Picks] = field(default_factory=dict)
    prefixes: Mapping[str, PromptPrefix] = field(default_factory=dict)

    def select(
        self, pruner: Pruner, hidden_BPD: Tensor, pools: Sequence[Pool], budgets: Sequence[int], context: Context
    ) -> list[Picks]:
        """Returns what each pool keeps, as `select_tokens` does; only unknown orders are computed, and whole.

        Args:
            pruner: the method.
            hidden_BPD: states that enter the cut.
            pools: the pools to select from.
            budgets: tokens that each pool keeps.
            context: what else the method may read.
        """
        if not pruner.traits.nested or len(pruner.cuts) > 1:
            return select_tokens(pruner, hidden_BPD, pools, budgets, context)
        keys = [self._key(pruner, pool) for pool in pools]
        missing = {key: pool for key, pool in zip(keys, pools, strict=True) if key not in self.known}
        if missing:
            new = list(missing.values())
            orders = select_tokens(pruner, hidden_BPD, new, [len(pool.at_N) for pool in new], context)
            self.known.update(zip(missing, orders, strict=True))
        return [
            replace(self.known[key], picks_K=self.known[key].picks_K[:size])
            for key, size in zip(keys, budgets, strict=True)
        ]

    def prefixes_of(self, pruner: Pruner, sample_ids: Sequence[str]) -> list[PromptPrefix] | None:
        """Returns each batch row's prefix; None where rows cannot share what the method keeps of it."""
        traits = pruner.traits
        can_share = len(pruner.cuts) == 1 and not traits.proportional_attention
        can_share &= traits.shares_picks_per_frame or not traits.merges_tokens
        if not can_share or not all(name in self.prefixes for name in sample_ids):
            return None
        return [self.prefixes[name] for name in sample_ids]

    def _key(self, pruner: Pruner, pool: Pool) -> tuple[str, ...]:
        prefix = self.prefixes.get(pool.sample_id) if pruner.traits.shares_picks_per_frame else None
        return (repr(pruner), prefix.name if prefix else pool.sample_id, *pool.cameras)
