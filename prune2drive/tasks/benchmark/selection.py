"""Times farthest point sampling beside the matrix product it is built on, and beside the plain algorithm.

Shape suffixes: C cameras, N tokens, D channels, K kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, product
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from prune2drive.errors import check_whole
from prune2drive.pruning import Uniform
from prune2drive.pruning.selection import budget, farthest_points
from prune2drive.tasks.benchmark.rounds import Turns, spread


def prepare(cfg: DictConfig, turns: Turns) -> Callable[[], Iterator[dict[str, Any]]]:
    """Returns what measures one row for every combination of cameras, tokens, width and keep ratio.

    Raises:
        InputError: a size below 1, or a keep ratio outside (0, 1].
    """
    options = cfg.task.selection
    for size in chain(options.cameras, options.tokens, options.widths):
        check_whole("task.selection: size", size)
    keeps = [Uniform(keep).keep for keep in options.keep]
    return lambda: map(partial(measure, turns), product(options.cameras, options.tokens, options.widths, keeps))


def measure(turns: Turns, sizes: tuple[int, int, int, float]) -> dict[str, Any]:
    """Returns times, their ratios to the bare product's, and whether the plain algorithm picks the same."""
    *shape, keep = sizes
    tokens_CND = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(turns.device)
    kept = budget(keep, shape[1])
    work: dict[str, Callable[[], Tensor]] = {
        "product": lambda: tokens_CND @ tokens_CND.transpose(1, 2),
        "selection": lambda: farthest_points(tokens_CND, kept),
        "plain": lambda: plain(tokens_CND, kept),
    }
    taken = turns.take({name: partial(turns.seconds, each) for name, each in work.items()})
    return {
        **dict(zip(("cameras", "tokens", "width"), shape, strict=True)),
        "kept": kept,
        **spread("product_ms", [1000 * seconds for seconds in taken["product"]]),
        **spread("ratio", taken["selection"], taken["product"]),
        **spread("plain_ratio", taken["plain"], taken["product"]),
        "same_picks": torch.equal(work["selection"]().cpu(), work["plain"]()),
    }


def plain(tokens_CND: Tensor, k: int) -> Tensor:
    """Selects by the algorithm as the paper has it, [C, K]: each camera alone, from its most isolated token."""
    picks_CK = []
    for tokens_ND in tokens_CND:
        unit_ND = tokens_ND / tokens_ND.norm(dim=1, keepdim=True)
        distance_NN = 1 - unit_ND @ unit_ND.T
        distance_NN.fill_diagonal_(torch.inf)
        picks = [int(distance_NN.min(dim=1).values.argmax())]
        while len(picks) < k:
            gap_N = distance_NN[picks].min(dim=0).values
            gap_N[picks] = -1
            picks.append(int(gap_N.argmax()))
        picks_CK.append(torch.tensor(picks))
    return torch.stack(picks_CK)
