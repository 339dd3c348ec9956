"""From keep ratios to numbers of tokens: how many each pool has left after each of a method's cuts.

Shape suffixes: B batch rows, P prompt positions (padded), R samples of the same cameras, M tokens of all cameras,
D channels, K tokens of the budget.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.ratios import Allocator, RatioPolicy
from prune2drive.pruning.selection import budget


@dataclass(frozen=True)
class Budgeting:
    """How keep ratios become numbers of tokens.

    Args:
        policy: the keep ratios.
        rounding: of a camera's budget; see `budget`.
        axis: what the budget says: `final`, the tokens left after the last cut, or `layer_average`, the mean over
            all decoder layers, which a method that cuts late or in stages has to make up for at its last cut.
        depth: decoder layers.
    """

    policy: RatioPolicy
    rounding: str
    axis: str
    depth: int

    def nominal(self, pools: Sequence[Pool], pruner: Pruner) -> list[int]:
        """How many tokens the ratios ask for in each pool."""
        return budgets(pools, pruner, self.policy, self.rounding)

    def of_rows(self, pools: Sequence[Pool], pruner: Pruner, rows: int) -> list[int]:
        """The same of each row of the batch."""
        totals = [0] * rows
        for pool, size in zip(pools, self.nominal(pools, pruner), strict=True):
            totals[pool.row] += size
        return totals

    def sizes(self, pools: Sequence[Pool], pruner: Pruner) -> list[list[int]]:
        """How many tokens the ratios leave in each pool after each of the method's cuts, [cut][pool]; never more again.

        Raises:
            InputError: a layer average that these cuts cannot meet.
        """
        counts = [len(pool.at_N) for pool in pools]
        if not pruner.drops:
            return [counts for _ in pruner.cuts]
        final = [self._final(pruner, *each) for each in zip(self.nominal(pools, pruner), counts, strict=True)]
        after = [
            accumulate([count, *pruner.sizes(size, count)], min) for size, count in zip(final, counts, strict=True)
        ]
        return [list(cut) for cut in zip(*after, strict=True)][1:]

    def allocate(self, hidden_BPD: Tensor, pools: Sequence[Pool], pruner: Pruner) -> tuple[list[list[int]], list[int]]:
        """The same `sizes`, the total of each row shared between its cameras as an allocating policy has it.

        Args:
            hidden_BPD: states that enter the first cut.
            pools: of the batch before any cut.

        Returns:
            sizes [cut][pool], and the floating point operations of sharing in each row.

        Raises:
            InputError: see `sizes`.
        """
        sizes, flops = self.sizes(pools, pruner), [0] * len(hidden_BPD)
        if not pruner.drops or not isinstance(self.policy, Allocator):
            return sizes, flops
        for counts, members in _alike(pools).items():
            totals = [sum(cut[index] for index in members[0]) for cut in sizes]
            if totals[-1] == sum(size for _, size in counts):
                continue
            at_RM = torch.stack([torch.cat([pools[index].at_N for index in mine]) for mine in members])
            rows = [pools[mine[0]].row for mine in members]
            tokens_RMD = hidden_BPD[torch.tensor(rows)[:, None], at_RM].to(getattr(torch, pruner.dtype))
            owner_RK = self.policy.spend(tokens_RMD, dict(counts), totals[0]).cpu()
            for row, mine, owner_K in zip(rows, members, owner_RK, strict=True):
                flops[row] = self.policy.flops(dict(counts), totals[0], hidden_BPD.shape[-1])
                for cut, total in zip(sizes, totals, strict=True):
                    shares = owner_K[:total].bincount(minlength=len(mine)).tolist()
                    for index, share in zip(mine, shares, strict=True):
                        cut[index] = share
        return sizes, flops

    def _final(self, pruner: Pruner, nominal: int, count: int) -> int:
        """Tokens after the last cut: the most whose layer average is within the nominal budget."""
        if self.axis == "final" or nominal == count:
            return nominal

        def average(k: int) -> Any:
            return layer_average(pruner, k, count, self.depth)

        if average(1) > nominal:
            raise InputError(
                f"budget_axis=layer_average: {nominal} of {count} tokens cannot be had with cuts at layers "
                f"{list(pruner.cuts)} of {self.depth}, {average(1):.0f} is the least; cut earlier, or raise the ratio"
            )
        return bisect_right(range(1, count + 1), nominal, key=average)


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


def layer_average(pruner: Pruner, k: int, count: int, depth: int) -> float:
    """Mean over decoder layers of the tokens left of a pool of `count`, k after the last cut."""
    bounds = [*pruner.cuts, depth]
    spans = [later - cut for cut, later in zip(bounds, bounds[1:], strict=False)]
    left_over = sum(span * min(size, count) for span, size in zip(spans, pruner.sizes(k, count), strict=True))
    return (bounds[0] * count + left_over) / depth


def _alike(pools: Sequence[Pool]) -> dict[tuple[tuple[str, int], ...], list[list[int]]]:
    """The pools of each row, by its cameras and their tokens: rows that agree in these are dealt with together."""
    of_row: dict[int, list[int]] = defaultdict(list)
    for index, pool in enumerate(pools):
        of_row[pool.row].append(index)
    alike: dict[tuple[tuple[str, int], ...], list[list[int]]] = defaultdict(list)
    for mine in of_row.values():
        alike[tuple((pools[index].cameras[0], len(pools[index].at_N)) for index in mine)].append(mine)
    return alike
