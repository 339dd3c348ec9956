import math

import pytest
import torch
from helpers.contexts import context
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, SalientTFPS
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.selection import farthest_points
from prune2drive.token_map import TokenMap

NAMES = ("CAM_FRONT", "CAM_LEFT", "CAM_RIGHT")


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pool(sizes, left=None):
    """The pool of one sample; `left` are the tokens that an earlier cut left of it."""
    ends = [sum(sizes[: at + 1]) for at in range(len(sizes))]
    spans = {name: (end - size, end) for name, size, end in zip(NAMES, sizes, ends, strict=False)}
    of_N = torch.arange(ends[-1]) if left is None else torch.tensor(left)
    return Pool("a", tuple(spans), 0, of_N, TokenMap.from_spans(spans, ends[-1]), of_N)


def by_the_formula(tokens, sizes, k, strength, most):
    """One token at a time, of all cameras; each camera's first token is its most isolated one."""
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    distance = (1 - unit @ unit.T).tolist()
    owner = [camera for camera, size in enumerate(sizes) for _ in range(size)]
    mine = [[i for i in range(len(tokens)) if owner[i] == camera] for camera in range(len(sizes))]
    means = [unit[members].mean(dim=0) for members in mine]
    weight = [
        max(1e-6, 1 - float(unit[i] @ means[owner[i]] / means[owner[i]].norm())) ** strength for i in range(len(tokens))
    ]
    caps = [min(size, math.ceil(most * k * size / sum(sizes))) for size in sizes]
    picks = []
    for members in mine:
        alone = {i: min((distance[i][j] for j in members if j != i), default=math.inf) * weight[i] for i in members}
        picks.append(max(members, key=lambda i: alone[i]))
    while len(picks) < k:
        taken = [[i for i in picks if owner[i] == camera] for camera in range(len(sizes))]
        free = [i for i in range(len(tokens)) if i not in picks and len(taken[owner[i]]) < caps[owner[i]]]
        picks.append(max(free, key=lambda i: weight[i] * min(distance[i][j] for j in taken[owner[i]])))
    return picks


@given(
    st.lists(st.integers(3, 7), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.5, 2.0]),
    st.sampled_from([1.0, 1.5, 9.0]),
    st.integers(0, 10**6),
    st.data(),
)
def test_it_takes_the_farthest_salient_token_of_all_cameras(sizes, strength, most, seed, data):
    k = data.draw(st.integers(len(sizes), sum(sizes)))
    tokens = drawn(sum(sizes), 5, seed=seed)
    found = SalientTFPS(strength=strength, most=most).select(tokens[None], k, context(pool(sizes)))[0].tolist()
    assert sorted(found) == sorted(by_the_formula(tokens, sizes, k, strength, most))


def test_samples_of_other_cameras_are_told_apart():
    tokens = drawn(3, 12, 6, seed=1)
    pools = pool((6, 6)), pool((4, 4, 4)), pool((6, 6))
    together = SalientTFPS().select(tokens, 5, context(*pools))
    for row, each in enumerate(pools):
        assert SalientTFPS().select(tokens[row : row + 1], 5, context(each))[0].tolist() == together[row].tolist()


def test_without_saliency_a_single_camera_is_plain_farthest_points():
    tokens = drawn(1, 12, 6, seed=2)
    assert torch.equal(
        SalientTFPS(strength=0, most=9).select(tokens, 5, context(pool((12,)))), farthest_points(tokens, 5)
    )


def test_what_an_earlier_cut_left_has_its_cameras():
    left = [0, 2, 3, 5, 8, 11]
    assert pool((6, 6), left).sizes == (4, 2) and pool((12,), left).sizes == (6,)
    assert pool((6, 6), [1, 2, 4]).sizes == (3, 0)
    picks = SalientTFPS(most=1).select(drawn(1, 6, 4, seed=3), 3, context(pool((6, 6), left)))[0]
    assert len(set(picks.tolist())) == 3 and (picks < 4).sum() == 2


def test_flops_are_those_of_cameras_by_themselves():
    plain, cameras = TFPS().flops(200, 20, 64), (200, 200, 200)
    assert 3 * plain < SalientTFPS().pool_flops(cameras, 60, 64) < 1.2 * 3 * plain < TFPS().flops(600, 60, 64)


@pytest.mark.parametrize("option", [{"strength": -1}, {"most": 0.5}, {"scope": "per_camera"}])
def test_wrong_options_are_named(option):
    (name,) = option
    with pytest.raises(InputError, match=name):
        SalientTFPS(**option)
