"""Uniform grid: keeps a regular lattice of each camera's image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.selection import grid_points


@dataclass
class UniformPruner(Pruner):
    """Keeps a centred lattice of tokens, whatever they show; see `grid_points`.

    The grids (tiles) of one camera share its budget by size.
    """

    traits = Traits(scopes=("per_camera",), nested=False, shares_picks_per_frame=True)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        return torch.stack([_lattice(pool, k) for pool in ctx.pools]).to(tokens_CND.device)


def _lattice(pool: Pool, k: int) -> Tensor:
    at_N = pool.token_map.positions(pool.cameras[0])[pool.of_N]
    view_N = pool.token_map.view_P[at_N]
    cell_N = pool.token_map.row_P[at_N], pool.token_map.col_P[at_N]
    picks, budget, tokens = [], k, len(at_N)
    for index in view_N.unique().tolist():
        view, of_view_M = pool.token_map.views[index], (view_N == index).nonzero().flatten()
        share = round(budget * len(of_view_M) / tokens)
        budget, tokens = budget - share, tokens - len(of_view_M)
        if share:
            cells_M2 = torch.stack([at[of_view_M] for at in cell_N], dim=1)
            points_K = grid_points(view.rows, view.cols, share)
            points_K2 = torch.stack([points_K // view.cols, points_K % view.cols], dim=1)
            picks.append(of_view_M[_nearest(cells_M2, points_K2)])
    return torch.cat(picks)


def _nearest(cells_M2: Tensor, points_K2: Tensor) -> Tensor:
    """Returns the cell at each point or, where an earlier cut dropped it, the nearest remaining one; [K]."""
    distance_KM = torch.cdist(points_K2.float(), cells_M2.float())
    picks = []
    for distance_M in distance_KM:
        picks.append(int(distance_M.argmin()))
        distance_KM[:, picks[-1]] = torch.inf
    return torch.tensor(picks)
