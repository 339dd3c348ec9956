import math

import pytest
import torch
from helpers.contexts import context, pools_of
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.pruning import OutlierPruner

CAMERAS = ("CAM_FRONT", "CAM_BACK")


def points(pools, n, d, seed):
    return torch.randn(pools, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def select(tokens, k):
    return OutlierPruner().select(tokens, k, context(*pools_of(tokens.shape[1], CAMERAS[: len(tokens)]))).tolist()


def by_the_formula(rows, k):
    """1 - cos of each token with the mean of unit tokens, one at a time; two tokens would tie."""
    units = [[x / math.hypot(*row) for x in row] for row in rows]
    mean = [math.fsum(column) / len(rows) for column in zip(*units, strict=True)]
    cosines = [math.fsum(x * y for x, y in zip(unit, mean, strict=True)) / math.hypot(*mean) for unit in units]
    return sorted(range(len(rows)), key=lambda i: (cosines[i], i))[:k]


@given(st.integers(3, 20), st.integers(2, 6), st.integers(0, 10**6), st.data())
def test_equals_the_formula_in_every_camera(n, d, seed, data):
    tokens, k = points(2, n, d, seed), data.draw(st.integers(1, n))
    assert select(tokens, k) == [by_the_formula(rows, k) for rows in tokens.tolist()]


@given(st.integers(3, 20), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_neither_order_nor_scale_of_tokens_matters(n, seed, random):
    tokens, order = points(1, n, 4, seed), list(range(n))
    random.shuffle(order)
    expected = select(tokens, n)[0]
    assert [order[pick] for pick in select(tokens[:, order], n)[0]] == expected
    assert select(tokens * points(1, n, 1, seed + 1).exp(), n)[0] == expected


@pytest.mark.parametrize("lone", [0, 7, 29])
def test_a_lone_deviating_token_comes_first_and_its_copy_second(lone):
    tokens = torch.ones(1, 30, 8) + 0.01 * points(1, 30, 8, 0).float()
    tokens[0, lone] = -1
    assert select(tokens, 1) == [[lone]]
    tokens[0, 15] = -1
    assert select(tokens, 2) == [sorted([lone, 15])]
    assert sorted(select(tokens, 30)[0]) == list(range(30))
