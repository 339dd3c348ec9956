import itertools
import math

import pytest
import torch
from helpers.contexts import context, pools_of
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.pruning import TFPS, DivPrune, prune

CAMERAS = ("CAM_FRONT", "CAM_BACK")
TEXT = [11, 12, 13]


def points(pools, n, d, seed):
    return torch.randn(pools, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def select(tokens, k):
    return DivPrune().select(tokens, k, context(*pools_of(tokens.shape[1], CAMERAS[: len(tokens)]))).tolist()


def distances(rows):
    def cosine(a, b):
        return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    return [[1 - cosine(a, b) for b in rows] for a in rows]


def by_the_formula(rows, k):
    """The token whose second smallest distance (the smallest is to itself) is largest; then max-min, none twice."""
    away, everyone = distances(rows), range(len(rows))
    picks = [max(everyone, key=lambda j: sorted(away[i][j] for i in everyone)[1])]
    while len(picks) < k:
        left = [j for j in everyone if j not in picks]
        picks.append(max(left, key=lambda j: min(away[i][j] for i in picks)))
    return picks


@given(st.integers(5, 20), st.integers(3, 6), st.integers(0, 10**6), st.data())
def test_equals_the_formula_in_every_camera(n, d, seed, data):
    tokens, k = points(2, n, d, seed), data.draw(st.integers(1, n))
    for picks, rows in zip(select(tokens, k), tokens.tolist(), strict=True):
        expected = by_the_formula(rows, k)
        if picks[0] != expected[0]:  # the two tokens that are each other's neighbour
            alone = [sorted(row)[1] for row in distances(rows)]
            assert alone[picks[0]] == pytest.approx(alone[expected[0]])
        else:
            assert picks == expected


@given(st.integers(3, 20), st.integers(0, 10**6))
def test_gaps_never_grow_and_a_full_budget_keeps_all(n, seed):
    tokens = points(1, n, 4, seed)
    away, picks = distances(tokens[0].tolist()), select(tokens, n)[0]
    gaps = [min(away[i][j] for i in picks[:step]) for step, j in enumerate(picks) if step]
    assert all(wider >= tighter - 1e-12 for wider, tighter in itertools.pairwise(gaps))
    assert sorted(picks) == list(range(n))


@given(st.integers(5, 20), st.integers(0, 10**6), st.randoms(use_true_random=False))
def test_neither_order_nor_scale_of_tokens_matters(n, seed, random):
    tokens, order = points(1, n, 4, seed), list(range(n))
    random.shuffle(order)
    expected = select(tokens, n)[0]
    shuffled = [order[pick] for pick in select(tokens[:, order], n)[0]]
    if shuffled[0] == expected[0]:  # else its equally isolated neighbour
        assert shuffled == expected
    assert select(tokens * (2.0 ** (torch.arange(n) - 7))[:, None], n)[0] == expected


def test_no_copy_is_picked_twice():
    assert sorted(select(points(1, 3, 4, 0).repeat(1, 4, 1), 12)[0]) == list(range(12))


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("scope", ["per_camera", "global"])
def test_farthest_point_sampling_at_the_same_layer_keeps_the_same(make_family, layer, scope):
    family = make_family("internvl")
    kept = []
    for method in (DivPrune(layer=layer, scope=scope), TFPS(layer=layer, scope=scope), TFPS(layer=1, scope=scope)):
        with prune(family.model, method, 0.3, **family.naming([TEXT])) as trace:
            family.model(**family.inputs([TEXT]))
        kept.append([picked.tolist() for picked in trace.picked[0].values()])
    assert kept[0] == kept[1] != kept[2]
