import itertools
import math

import pytest
import torch
from helpers.contexts import context, pools_of
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.pruning import TFPS, FacilityLocation

CAMERAS = ("CAM_FRONT", "CAM_BACK")


def points(pools, n, d, seed):
    return torch.randn(pools, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def select(tokens, k, method=None):
    ctx = context(*pools_of(tokens.shape[1], CAMERAS[: len(tokens)]))
    return (method or FacilityLocation()).select(tokens, k, ctx).tolist()


def cosines(rows):
    return [
        [math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b) for b in rows]
        for a in rows
    ]


def worth(like, picks):
    return math.fsum(max(like[i][j] for i in picks) for j in range(len(like)))


def by_the_formula(like, k):
    picks = []
    while len(picks) < k:
        left = [i for i in range(len(like)) if i not in picks]
        worths = [worth(like, [*picks, i]) for i in left]
        picks.append(next(i for i, found in zip(left, worths, strict=True) if found > max(worths) - 1e-13))
    return picks


@given(st.integers(3, 12), st.integers(3, 6), st.integers(0, 10**6), st.data())
def test_equals_the_formula_in_every_camera(n, d, seed, data):
    tokens, k = points(2, n, d, seed), data.draw(st.integers(1, n))
    assert select(tokens, k) == [by_the_formula(cosines(rows), k) for rows in tokens.tolist()]


@given(st.integers(3, 9), st.integers(1, 4), st.integers(0, 10**6))
def test_within_its_guarantee_of_the_optimum_and_gains_never_grow(n, k, seed):
    tokens, k = points(1, n, 3, seed), min(k, n)
    like, picks = cosines(tokens[0].tolist()), select(tokens, n)[0]
    best = max(worth(like, chosen) for chosen in itertools.combinations(range(n), k))
    assert worth(like, picks[:k]) + n >= (1 - 1 / math.e) * (best + n)
    worths = [-n] + [worth(like, picks[:step]) for step in range(1, n + 1)]
    gains = [after - before for before, after in itertools.pairwise(worths)]
    assert all(larger >= smaller - 1e-9 for larger, smaller in itertools.pairwise(gains))
    assert sorted(picks) == list(range(n))


@given(st.integers(3, 12), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_neither_order_nor_scale_of_tokens_matters(n, seed, random):
    """Up to tokens that are worth the same."""
    tokens, order = points(1, n, 4, seed), list(range(n))
    random.shuffle(order)
    like, expected = cosines(tokens[0].tolist()), select(tokens, n)[0]
    shuffled = [order[pick] for pick in select(tokens[:, order], n)[0]]
    for k in range(1, n):
        assert worth(like, shuffled[:k]) == pytest.approx(worth(like, expected[:k]))
    assert select(tokens * (2.0 ** torch.arange(n))[:, None], n)[0] == expected


def test_it_keeps_what_there_is_much_of_and_farthest_points_what_is_alone():
    """Three clusters and one token alone: the clusters are served first, the largest before the others."""
    centres = torch.eye(4, dtype=torch.float64)
    tokens = torch.cat([centres[i].expand(size, 4) for i, size in enumerate((9, 6, 3, 1))])[None]
    tokens = tokens + 0.02 * points(1, 19, 4, 0)
    cluster = [0] * 9 + [1] * 6 + [2] * 3 + [3]
    assert [cluster[pick] for pick in select(tokens, 4)[0]] == [0, 1, 2, 3]
    assert 3 in [cluster[pick] for pick in select(tokens, 2, TFPS())[0]]


def test_copies_come_last_and_ties_go_to_the_lowest_index():
    tokens = torch.eye(3, dtype=torch.float64).repeat(3, 1)[None]
    assert select(tokens, 9)[0] == list(range(9))
