"""`grid_points`: cells of a grid at even distances."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.pruning.selection import (
    grid_points,
)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_lattices_have_exactly_k_different_cells(rows, cols, data):
    k = data.draw(st.integers(1, rows * cols))
    picks = grid_points(rows, cols, k).tolist()
    assert len(set(picks)) == k and 0 <= min(picks) and max(picks) < rows * cols


@pytest.mark.parametrize(("side", "part"), [(27, 3), (27, 5), (27, 8), (16, 4), (12, 5), (9, 9)])
def test_a_square_lattice_is_even(side, part):
    """Neighbours are within one cell of their ideal spacing; odd sides are covered symmetrically."""
    picks = grid_points(side, side, part * part)
    rows, cols = (picks // side).unique(), (picks % side).unique()
    assert len(rows) == len(cols) == part
    for line in (rows, cols):
        assert ((line.diff() - side / part).abs() < 1).all()
        assert abs(line[0] - (side / part - 1) / 2) < 1
        if side % 2:
            assert torch.equal(line, side - 1 - line.flip(0))


def test_a_lattice_follows_the_shape_of_the_image():
    picks = grid_points(4, 16, 16)
    assert len((picks // 16).unique()) == 2 and len((picks % 16).unique()) == 8


@pytest.mark.parametrize("k", [5, 7, 11, 13])
def test_what_a_lattice_leaves_over_goes_to_the_emptiest_cell(k):
    cells = torch.cartesian_prod(torch.arange(9.0), torch.arange(9.0))
    *others, last = grid_points(9, 9, k).tolist()
    gaps = torch.cdist(cells, cells[others]).amin(1)
    assert last == gaps.argmax()


def test_the_full_grid_and_bad_grids():
    assert sorted(grid_points(3, 4, 12).tolist()) == list(range(12))
    assert grid_points(1, 1, 1).tolist() == [0]
    for k in (0, 13):
        with pytest.raises(ValueError, match="3 x 4"):
            grid_points(3, 4, k)
