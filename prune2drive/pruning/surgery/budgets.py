"""From keep ratios to budgets: how many tokens of each pool remain after each of a method's cuts.

Shape suffixes: B batch rows, P prompt positions (padded), R samples with the same cameras, M tokens of all cameras,
D channels, K tokens of the budget.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from prune2drive.cameras import camera_of
from prune2drive.errors import InputError
from prune2drive.pruning.base import Pruner
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.ratios import Allocator, RatioPolicy
from prune2drive.pruning.selection import budget
from prune2drive.pruning.surgery.cut import gather


@dataclass(frozen=True)
class BudgetRule:
    """How keep ratios become budgets.

    Args:
        policy: the keep ratios.
        rounding: how a ratio becomes a whole number: `nearest` or `seed`; see `budget`.
        axis: what a budget says: `final`, the tokens kept after the last cut, or `layer_average`, their mean over all
            decoder layers, which a method that cuts late or in stages makes up for at its last cut.
        depth: decoder layers.
    """

    policy: RatioPolicy
    rounding: str
    axis: str
    depth: int

    def nominal(self, pools: Sequence[Pool], pruner: Pruner) -> list[int]:
        """Returns how many tokens of each pool the ratios ask for: the sum of its cameras' budgets.

        Raises:
            InputError: a camera without a ratio, or a budget of no token.
        """
        if not pruner.cuts:
            return [len(pool.at_N) for pool in pools]
        known: dict[int, Mapping[str, int]] = {}
        for pool in pools:
            if id(pool.token_map) not in known:
                known[id(pool.token_map)] = self.of_cameras(pool.token_map.cameras, pool.token_map.counts)
        return [sum(known[id(pool.token_map)][camera] for camera in pool.cameras) for pool in pools]

    def of_cameras(self, cameras: Sequence[str], counts: Mapping[str, int]) -> dict[str, int]:
        """Returns camera -> budget in tokens, for the cameras of a prompt.

        Args:
            cameras: their names.
            counts: number of visual tokens of each.

        Raises:
            InputError: a camera without a ratio, or a budget of no token.
        """
        sizes = {}
        for camera, ratio in self.policy.ratios(tuple(cameras)).items():
            try:
                sizes[camera] = budget(ratio, counts[camera], self.rounding)
            except ValueError as error:
                raise InputError(f"{camera}: {error}") from None
        return sizes

    def per_cut(self, pools: Sequence[Pool], pruner: Pruner, nominal: Sequence[int]) -> list[list[int]]:
        """Returns the budget of each pool at each of the method's cuts, [cut][pool]; never more than before a cut.

        Args:
            pools: the pools before any cut.
            pruner: the method, resolved.
            nominal: what the ratios ask for in each pool.

        Raises:
            InputError: a layer average that these cuts cannot meet.
        """
        after = []
        for pool, asked in zip(pools, nominal, strict=True):
            count = len(pool.at_N)
            final = self._final(pruner, asked, count)
            after.append(accumulate([count, *pruner.sizes(final, count)], min))
        return [list(cut) for cut in zip(*after, strict=True)][1:]

    def allocate(
        self, hidden_BPD: Tensor, pools: Sequence[Pool], pruner: Pruner, nominal: Sequence[int]
    ) -> tuple[list[list[int]], list[int]]:
        """Returns the budgets as `per_cut` does, each row's total shared between its cameras by an allocating policy.

        Args:
            hidden_BPD: states that enter the first cut.
            pools: the pools before any cut.
            pruner: the method, resolved.
            nominal: what the ratios ask for in each pool.

        Returns:
            Budgets [cut][pool], and the floating point operations of sharing in each batch row.

        Raises:
            InputError: a layer average that these cuts cannot meet.
        """
        sizes, flops = self.per_cut(pools, pruner, nominal), [0] * len(hidden_BPD)
        if not isinstance(self.policy, Allocator):
            return sizes, flops
        for counts, members in _rows_with_the_same_cameras(pools).items():
            totals = [sum(cut[index] for index in members[0]) for cut in sizes]
            if totals[-1] == sum(size for _, size in counts):
                continue
            at_RM = torch.stack([torch.cat([pools[index].at_N for index in row]) for row in members])
            rows = [pools[row[0]].row for row in members]
            tokens_RMD = gather(hidden_BPD, at_RM, torch.tensor(rows)).to(getattr(torch, pruner.dtype))
            owner_RK = self.policy.allocate(tokens_RMD, dict(counts), totals[0]).cpu()
            for row, places, owner_K in zip(rows, members, owner_RK, strict=True):
                flops[row] = self.policy.flops(dict(counts), totals[0], hidden_BPD.shape[-1])
                for cut, total in zip(sizes, totals, strict=True):
                    for place, share in zip(places, owner_K[:total].bincount(minlength=len(places)), strict=True):
                        cut[place] = int(share)
        return sizes, flops

    def _final(self, pruner: Pruner, nominal: int, count: int) -> int:
        """Returns the tokens after the last cut: the most whose layer average is within the nominal budget."""
        if self.axis == "final" or nominal == count:
            return nominal

        def average(k: int) -> float:
            return layer_average(pruner, k, count, self.depth)

        if average(1) > nominal:
            raise InputError(
                f"budget_axis=layer_average: {nominal} of {count} tokens cannot be had with cuts at layers "
                f"{list(pruner.cuts)} of {self.depth}, {average(1):.0f} is the least; cut earlier, or raise the ratio"
            )
        return bisect_right(range(1, count + 1), float(nominal), key=average)


def layer_average(pruner: Pruner, k: int, count: int, depth: int) -> float:
    """Returns the mean over decoder layers of the tokens kept of a pool of `count`, k after the last cut."""
    bounds = [*pruner.cuts, depth]
    spans = [later - cut for cut, later in pairwise(bounds)]
    kept = sum(span * min(size, count) for span, size in zip(spans, pruner.sizes(k, count), strict=True))
    return (bounds[0] * count + kept) / depth


def _rows_with_the_same_cameras(pools: Sequence[Pool]) -> dict[tuple[tuple[str, int], ...], list[list[int]]]:
    """Groups batch rows that agree in their cameras and token counts; each row as the places of its pools."""
    of_row: dict[int, list[int]] = defaultdict(list)
    for index, pool in enumerate(pools):
        of_row[pool.row].append(index)
    groups: dict[tuple[tuple[str, int], ...], list[list[int]]] = defaultdict(list)
    for places in of_row.values():
        groups[tuple((_name(pools[index]), len(pools[index].at_N)) for index in places)].append(places)
    return groups


def _name(pool: Pool) -> str:
    """Returns the camera of a pool of one camera; where the pool has its times together, the camera without a time."""
    return pool.cameras[0] if len(pool.cameras) == 1 else camera_of(pool.cameras[0])
