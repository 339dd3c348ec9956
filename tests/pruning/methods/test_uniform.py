import torch
from helpers.contexts import context

from prune2drive.pruning import UniformPruner
from prune2drive.pruning.pool import Pool
from prune2drive.token_map import TokenMap, View


def lattice(token_map, camera, k):
    """Prompt positions that the uniform grid keeps."""
    pool = Pool("a", (camera,), 0, token_map.positions(camera), token_map, torch.arange(token_map.counts[camera]))
    tokens = torch.zeros(1, len(pool.at_N), 1)
    kept = UniformPruner().select(tokens, k, context(pool))[0]
    return pool.at_N[kept].sort().values


def test_a_camera_of_several_tiles_shares_its_budget_by_size():
    tiles = [(View("A", 4, 4), torch.arange(16)), (View("A", 8, 8), torch.arange(20, 84))]
    token_map = TokenMap.from_grids([*tiles, (View("B", 2, 2), torch.arange(16, 20))], 84)
    for k in (1, 2, 5, 20, 79, 80):
        at = lattice(token_map, "A", k)
        assert len(at.unique()) == k
        assert abs((at < 16).sum() - k * 16 / 80) <= 0.5


def test_the_lattice_follows_the_grid_not_the_prompt():
    """Cameras of a stitched image share its rows, and a grid may be told in any order."""
    left = torch.tensor([0, 1, 2, 6, 7, 8, 12, 13, 14])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    scrambled = torch.arange(9)[order]
    stitched = TokenMap.from_grids([(View("L", 3, 3), left), (View("R", 3, 3), left + 3)], 18)
    turned = TokenMap.from_grids([(View("L", 3, 3), scrambled)], 9)
    assert lattice(stitched, "R", 1).tolist() == [10]
    assert lattice(turned, "L", 1).tolist() == [scrambled[4]]
    assert lattice(stitched, "R", 4).tolist() == [3, 5, 15, 17]
    assert set(lattice(turned, "L", 4).tolist()) == set(scrambled[[0, 2, 6, 8]].tolist())
