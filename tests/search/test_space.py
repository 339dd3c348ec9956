import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.cameras import CAMERAS
from prune2drive.errors import InputError
from prune2drive.pruning.selection import budget
from prune2drive.search.baselines import baselines
from prune2drive.search.space import make_space, share_out, whole_tokens

LOW = 0.02
weights = st.lists(st.floats(0.001, 100), min_size=1, max_size=8).map(lambda each: dict(enumerate(each)))


@given(weights, st.floats(LOW, 1))
def test_a_total_is_shared_out_exactly_and_in_proportion(shares, keep):
    ratios = share_out(shares, keep, LOW)
    assert math.isclose(sum(ratios.values()), keep * len(shares), rel_tol=1e-9)
    assert all(LOW <= ratio <= 1 for ratio in ratios.values())
    within = {name: ratio for name, ratio in ratios.items() if LOW * (1 + 1e-9) < ratio < 1 - 1e-9}
    levels = [ratio / shares[name] for name, ratio in within.items()]
    assert np.allclose(levels, levels[:1] * len(levels), rtol=1e-6)
    for low, high in [(a, b) for a in shares for b in shares if shares[a] < shares[b]]:
        assert ratios[low] <= ratios[high] + 1e-12


@given(weights, st.floats(LOW, 1))
def test_sharing_out_agrees_with_bisection(shares, keep):
    low, high = 0.0, 1 / min(shares.values())
    for _ in range(200):
        level = (low + high) / 2
        total = sum(np.clip([level * weight for weight in shares.values()], LOW, 1))
        low, high = (level, high) if total < keep * len(shares) else (low, level)
    expected = np.clip([high * weight for weight in shares.values()], LOW, 1)
    np.testing.assert_allclose(list(share_out(shares, keep, LOW).values()), expected, atol=1e-9)


def test_mirrored_cameras_share_a_variable():
    space = make_space("penalty", CAMERAS, symmetric=True)
    assert set(space.variables) == {"CAM_FRONT", "CAM_FRONT_SIDE", "CAM_BACK", "CAM_BACK_SIDE"}
    values = {"CAM_FRONT": 0.9, "CAM_FRONT_SIDE": 0.5, "CAM_BACK": 0.1, "CAM_BACK_SIDE": 0.2}
    ratios = space.ratios(values)
    assert list(ratios) == list(CAMERAS)
    assert ratios["CAM_FRONT_LEFT"] == ratios["CAM_FRONT_RIGHT"] == 0.5 and ratios["CAM_BACK"] == 0.1
    assert space.values(ratios) == values


def test_the_simplex_takes_allocations_back():
    space = make_space("simplex", CAMERAS, keep=0.2)
    ratios = share_out(dict(zip(CAMERAS, (2, 1.2, 1.2, 0.8, 0.4, 0.4), strict=True)), 0.2, LOW)
    assert space.ratios(space.values(ratios)) == pytest.approx(ratios)


@given(weights, st.floats(0, 1), st.data())
def test_whole_tokens_are_the_nearest_allocation_of_a_total(shares, part, data):
    tokens = {name: data.draw(st.integers(1, 900)) for name in shares}
    total = max(len(tokens), round(part * sum(tokens.values())))
    high = max(shares.values())
    wanted = {name: weight / high for name, weight in shares.items()}
    ratios = whole_tokens(wanted, tokens, total)
    for rounding in ("nearest", "seed"):
        assert sum(budget(ratio, tokens[name], rounding) for name, ratio in ratios.items()) == total
    alike = {name: 64 for name in shares}
    even = whole_tokens(wanted, alike, len(alike) + (64 - 1) * len(alike) // 3)
    kept = {name: budget(ratio, 64) for name, ratio in even.items()}
    assert all(kept[one] <= kept[other] + 1 for one in shares for other in shares if shares[one] <= shares[other])


def test_whole_tokens_move_no_share_by_more_than_one():
    ratios = {name: 0.05 * n for n, name in enumerate(CAMERAS, start=1)}
    tokens = dict.fromkeys(CAMERAS, 64)
    for total in (60, 67, 70):
        scale = total / sum(64 * ratio for ratio in ratios.values())
        moved = whole_tokens(ratios, tokens, total)
        assert all(abs(64 * moved[name] - scale * 64 * ratios[name]) < 1 for name in CAMERAS)


@given(st.lists(st.floats(LOW, 1), min_size=6, max_size=6), st.sampled_from([18, 36, 96, 384]))
def test_every_point_of_the_simplex_keeps_the_same_tokens(values, total):
    tokens = dict.fromkeys(CAMERAS, 64)
    space = make_space("simplex", CAMERAS, keep=total / 384, tokens=tokens, total=total)
    ratios = space.ratios(dict(zip(CAMERAS, values, strict=True)))
    assert sum(budget(ratio, 64) for ratio in ratios.values()) == total


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "simplex", "keep": 0.01}, "search.keep=0.01: no ratios from search.low=0.02 to 1 have this mean"),
        ({"name": "simplex", "keep": 1.5}, "search.keep=1.5"),
        ({"name": "penalty", "low": 0}, "search.low=0"),
        ({"name": "sphere"}, "search.space=sphere: choose from penalty, simplex"),
    ],
)
def test_an_impossible_space(options, message):
    with pytest.raises(InputError, match=message):
        make_space(cameras=CAMERAS, **options)


def test_candidates_outside_the_space():
    with pytest.raises(InputError, match="CAM_TOP"):
        make_space("penalty", CAMERAS).values(dict.fromkeys((*CAMERAS, "CAM_TOP"), 0.1))
    with pytest.raises(InputError, match=r"outside \[0.02, 1\]"):
        make_space("penalty", CAMERAS).values(dict.fromkeys(CAMERAS, 0.01))


def test_baselines_keep_the_same_tokens():
    tokens = dict.fromkeys(CAMERAS, 100)
    found = baselines(tokens, 60, LOW, 3, 0)
    assert {name: len(each) for name, each in found.items()} == {"uniform": 1, "random": 3, "front_heavy": 1}
    for ratios in (ratios for each in found.values() for ratios in each):
        assert sum(budget(ratio, 100) for ratio in ratios.values()) == 60 and min(ratios.values()) > 0
    assert found["uniform"] == [dict.fromkeys(CAMERAS, 0.1)]
    (front,) = found["front_heavy"]
    assert front["CAM_FRONT"] == pytest.approx(0.2) and front["CAM_BACK_LEFT"] == pytest.approx(0.04)
    assert found["random"] == baselines(tokens, 60, LOW, 3, 0)["random"] != baselines(tokens, 60, LOW, 3, 1)["random"]
    assert "front_heavy" not in baselines({"LEFT": 10, "RIGHT": 10}, 4, LOW, 1, 0)
