import itertools
import json
import math

import pytest
import torch
from helpers import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.pruning.selection import (
    METRICS,
    budget,
    farthest_points,
    highest,
    outlier_scores,
    pairwise_distance,
)

CASES = json.loads((GOLDEN / "tfps.json").read_text())["cases"]


def recipe(name, seed, n, d):
    torch.manual_seed(seed)
    if name == "duplicates":
        half = torch.randn(40, 32)
        return torch.cat([half, half[:20]])
    if name == "clusters":
        centres, member = torch.randn(6, 64), torch.randint(0, 6, (300,))
        return centres[member] + 0.1 * torch.randn(300, 64)
    return torch.randn(n, d)


def points(n, d, seed, pools=None):
    shape = (n, d) if pools is None else (pools, n, d)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


sets = st.builds(points, st.integers(2, 24), st.integers(2, 6), st.integers(0, 10**6))


def distance(a, b, metric):
    if metric == "cosine":
        return 1 - math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
    gaps = [abs(x - y) for x, y in zip(a, b, strict=True)]
    return math.fsum(gaps) if metric == "l1" else math.hypot(*gaps)


def by_the_formula(tokens, k, metric, start, mode):
    """Max-min (or min-min) selection, one distance at a time."""
    rows, picks = tokens.tolist(), [start]
    best = max if mode == "farthest" else min
    while len(picks) < k:
        left = [i for i in range(len(rows)) if i not in picks]
        picks.append(best(left, key=lambda i: min(distance(rows[i], rows[j], metric) for j in picks)))
    return picks


def radius(tokens, picks, metric):
    """How far the worst token is from its nearest pick."""
    rows = tokens.tolist()
    return max(min(distance(row, rows[pick], metric) for pick in picks) for row in rows)


# Farthest points


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.get('name')}-{case['seed']}-{case['n']}-{case['k']}")
def test_picks_of_the_original(case):
    tokens = recipe(case.get("name"), case["seed"], case["n"], case["d"])
    assert tokens.abs().sum().item() == pytest.approx(case["x_checksum"]["abs_sum"])
    assert farthest_points(tokens, case["k"]).tolist() == case["indices_in_selection_order"]


@pytest.mark.parametrize("mode", ["farthest", "nearest"])
@pytest.mark.parametrize("start", ["isolated", "centroid", 4])
@pytest.mark.parametrize("metric", METRICS)
@given(st.integers(5, 20), st.integers(2, 5), st.integers(0, 10**6))
def test_equals_the_formula(metric, start, mode, n, d, seed):
    tokens = points(n, d, seed)
    picks = farthest_points(tokens, n, metric, start, mode).tolist()
    assert picks == by_the_formula(tokens, n, metric, picks[0], mode)
    rows = tokens.tolist()
    if start == 4:
        assert picks[0] == 4
    elif start == "isolated":
        alone = [min(distance(row, rows[j], metric) for j in range(n) if j != i) for i, row in enumerate(rows)]
        assert alone[picks[0]] == pytest.approx(max(alone))  # two tokens may be each other's neighbour
    else:
        units = [[x / math.hypot(*row) for x in row] if metric == "cosine" else row for row in rows]
        centre = [math.fsum(column) / n for column in zip(*units, strict=True)]
        assert picks[0] == max(range(n), key=lambda i: distance(rows[i], centre, metric))


@given(sets, st.sampled_from(METRICS))
def test_the_covering_radius_never_grows_and_smaller_budgets_are_prefixes(tokens, metric):
    picks = farthest_points(tokens, len(tokens), metric).tolist()
    radii = [radius(tokens, picks[:k], metric) for k in range(1, len(picks) + 1)]
    assert all(wider >= tighter for wider, tighter in itertools.pairwise(radii))
    assert sorted(picks) == list(range(len(tokens)))
    assert all(farthest_points(tokens, k, metric).tolist() == picks[:k] for k in range(1, len(picks)))


@given(sets, st.sampled_from(METRICS), st.sampled_from(["farthest", "nearest"]), st.randoms(use_true_random=False))
def test_the_order_of_tokens_does_not_matter(tokens, metric, mode, random):
    order = list(range(len(tokens)))
    random.shuffle(order)
    expected = farthest_points(tokens, len(tokens), metric, 1, mode).tolist()
    picks = farthest_points(tokens[order], len(tokens), metric, order.index(1), mode)
    assert [order[pick] for pick in picks] == expected


@given(sets, st.integers(0, 10**6))
def test_cosine_ignores_the_length_of_tokens(tokens, seed):
    scale = points(len(tokens), 1, seed).exp()
    picks = farthest_points(tokens, len(tokens)).tolist()
    assert farthest_points(tokens * 2.0**20, len(tokens)).tolist() == picks
    assert farthest_points(tokens * scale, len(tokens)).tolist() == picks


@pytest.mark.parametrize("metric", ["l1", "l2"])
@pytest.mark.parametrize("n", [20, 60])
def test_components_that_all_tokens_share_do_not_drown_the_differences(metric, n):
    """Hidden states have a few huge ones."""
    tokens = points(n, 8, 0) + torch.tensor([0, 4096, 0, -8192, 0, 0, 1024, 0])
    exact = torch.cdist(tokens, tokens, p=1.0 if metric == "l1" else 2.0)
    assert (pairwise_distance(tokens[None].float(), metric)[0] - exact).abs().max() < 0.01


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("copies", [10, 40])
def test_duplicates_come_last(metric, copies):
    tokens = torch.randn(copies, 16, generator=torch.Generator().manual_seed(copies))
    doubled = torch.cat([tokens, tokens, tokens])
    picks = farthest_points(doubled, len(doubled), metric)
    assert sorted((picks[:copies] % copies).tolist()) == list(range(copies))


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 10**6))
def test_at_most_twice_the_optimal_radius(n, k, seed):
    tokens, k = points(n, 2, seed), min(k, n)
    optimum = min(radius(tokens, chosen, "l2") for chosen in itertools.combinations(range(n), k))
    for start in ("isolated", 0):
        assert radius(tokens, farthest_points(tokens, k, "l2", start).tolist(), "l2") <= 2 * optimum + 1e-9


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_nearest_covers_no_better_than_farthest(metric, seed):
    tokens = (points(6, 8, seed) * 10).repeat(10, 1) + points(60, 8, seed + 1)
    for k in (6, 12, 20):
        far, near = (farthest_points(tokens, k, metric, mode=mode).tolist() for mode in ("farthest", "nearest"))
        assert radius(tokens, near, metric) >= radius(tokens, far, metric)


def test_ties_go_to_the_lowest_index():
    corners = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert farthest_points(corners, 4, "l1", start=0).tolist() == [0, 3, 1, 2]
    assert farthest_points(corners, 4, "l2").tolist() == [0, 3, 1, 2]
    assert farthest_points(torch.ones(5, 3), 5).tolist() == [0, 1, 2, 3, 4]
    assert farthest_points(torch.zeros(5, 3), 5, mode="nearest").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("start", ["isolated", "centroid", 3])
def test_pools_are_independent(metric, start):
    pools = points(30, 6, 0, pools=4).float()
    together = farthest_points(pools, 12, metric, start)
    assert torch.equal(together, torch.stack([farthest_points(pool, 12, metric, start) for pool in pools]))


def test_a_start_for_each_pool():
    pools = points(30, 6, 0, pools=3)
    picks = farthest_points(pools, 5, start=torch.tensor([7, 0, 29]))
    assert torch.equal(picks, torch.stack([farthest_points(pools[i], 5, start=s) for i, s in enumerate((7, 0, 29))]))


def test_random_starts_follow_the_generator():
    tokens = points(50, 6, 0, pools=8)
    first = [farthest_points(tokens, 3, start="random", generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    assert len(set(first[0][:, 0].tolist())) > 4


def test_one_token_and_zero_tokens():
    assert farthest_points(torch.randn(1, 4), 1).tolist() == [0]
    assert sorted(farthest_points(torch.zeros(6, 4), 6).tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": torch.randn(4)}, "expected"),
        ({"tokens": torch.randn(1, 1, 4, 2)}, "expected"),
        ({"k": 0}, "cannot select 0 of 8"),
        ({"k": 9}, "cannot select 9 of 8"),
        ({"metric": "euclid"}, "euclid"),
        ({"mode": "near"}, "near"),
        ({"start": "first"}, "first"),
        ({"start": -1}, "-1"),
        ({"start": 8}, "8 tokens"),
        ({"start": True}, "True"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        farthest_points(**{"tokens": torch.randn(8, 3), "k": 2, **arguments})


# Budgets


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 5000))
def test_budgets(ratio, count):
    kept = budget(ratio, count)
    assert kept == max(1, math.floor(ratio * count + 0.5))
    assert 1 <= kept <= count
    if int(ratio * count):
        assert budget(ratio, count, "seed") == int(ratio * count)


def test_budgets_of_the_paper():
    assert (budget(0.1, 729), budget(0.25, 729), budget(0.5, 1), budget(1.0, 729)) == (73, 182, 1, 729)
    assert budget(0.095, 729, "seed") == 69
    assert budget(0.1, 45) == 5  # halves are rounded up


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, float("nan"), float("inf")])
@pytest.mark.parametrize("rounding", ["nearest", "seed"])
def test_ratios_out_of_range(ratio, rounding):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        budget(ratio, 10, rounding)


def test_bad_budgets():
    with pytest.raises(ValueError, match="nearest.*seed"):
        budget(0.1, 10, "ceil")
    with pytest.raises(ValueError, match="raise the ratio"):
        budget(0.01, 10, "seed")


# Scores


@given(sets, st.sampled_from(METRICS), st.randoms(use_true_random=False))
def test_outlier_scores_follow_the_tokens(tokens, metric, random):
    order = list(range(len(tokens)))
    random.shuffle(order)
    scores = outlier_scores(tokens[None], metric)[0]
    torch.testing.assert_close(outlier_scores(tokens[order][None], metric)[0], scores[order])
    factor = {"cosine": 1, "l1": 4, "l2": 4}[metric]
    torch.testing.assert_close(outlier_scores(tokens[None] * 4, metric)[0], scores * factor)


@pytest.mark.parametrize("metric", METRICS)
def test_a_lone_token_is_the_outlier(metric):
    tokens = torch.tensor([[1.0, 0.01 * i] for i in range(9)] + [[-1.0, 0.5]])[None]
    assert outlier_scores(tokens, metric).argmax() == 9
    assert sorted(highest(outlier_scores(tokens, metric), 10)[0].tolist()) == list(range(10))


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3), st.integers(1, 6))
def test_highest_scores_with_ties_in_order(scores, k):
    expected = [sorted(range(6), key=lambda i: (-row[i], i))[:k] for row in scores]
    assert highest(torch.tensor(scores).float(), k).tolist() == expected


def test_many_ties_stay_in_order():
    assert highest(torch.zeros(2, 1000), 1000).tolist() == [list(range(1000))] * 2
