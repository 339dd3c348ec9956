"""One total shared between cameras: what every order of spending promises, and both pools against loops by hand."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import Allocator, Dynamic, RatioPolicy
from prune2drive.pruning.dynamic_ratios import POOLS

pools = st.sampled_from(POOLS)
starts = st.sampled_from(["isolated", "centroid"])


@st.composite
def scenes(draw, least=1):
    """Tokens of some cameras, a budget for them, and a weight for each."""
    counts = draw(st.lists(st.integers(1, 9), min_size=least, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    tokens = [torch.randn(count, 4, generator=generator, dtype=torch.float64) for count in counts]
    weights = [draw(st.floats(0.2, 5)) for _ in counts]
    return tokens, draw(st.integers(len(counts), sum(counts))), weights


def names(count):
    return [f"CAM_{index}" for index in range(count)]


def order(tokens, k, pool="joint", weights=None, **options):
    """The cameras on which k tokens of one sample are spent, by their places."""
    given_weights = None if weights is None else dict(zip(names(len(tokens)), weights, strict=True))
    policy = Dynamic(0.5, pool, given_weights, **{"exponent": 1.0, **options})
    counts = {camera: len(each) for camera, each in zip(names(len(tokens)), tokens, strict=True)}
    return policy.allocate(torch.cat(tokens)[None], counts, k)[0].tolist()


def budgets(*args, **options):
    spent = Counter(order(*args, **options))
    return [spent[camera] for camera in range(len(args[0]))]


def cosine(a, b):
    return 1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def most_isolated(tokens, weights):
    alone = [
        min((cosine(a, b) for at, b in enumerate(tokens) if at != index), default=math.inf) * weight
        for index, (a, weight) in enumerate(zip(tokens, weights, strict=True))
    ]
    return alone.index(max(alone))


def greedy(tokens, k, weights, joint):
    """Tokens each camera gets, found one at a time among all tokens left."""
    every = [(camera, token) for camera, mine in enumerate(tokens) for token in mine]
    if joint:
        taken = [most_isolated([token for _, token in every], [weights[camera] for camera, _ in every])]
    else:
        firsts = [sum(map(len, tokens[:camera])) for camera in range(len(tokens))]
        taken = [first + most_isolated(mine, [1] * len(mine)) for first, mine in zip(firsts, tokens, strict=True)]
    while len(taken) < k:
        gaps = {
            index: weights[camera] * min(cosine(token, every[at][1]) for at in taken if joint or every[at][0] == camera)
            for index, (camera, token) in enumerate(every)
            if index not in taken
        }
        taken.append(max(gaps, key=gaps.get))
    spent = [every[at][0] for at in taken]
    for camera in set(range(len(tokens))) - set(spent):
        spent.pop(max(place for place, owner in enumerate(spent) if spent.index(owner) < place))
        spent.append(camera)
    return [spent.count(camera) for camera in range(len(tokens))]


@given(scenes(), st.booleans())
def test_both_pools_are_the_greedy_rule(scene, joint):
    tokens, k, weights = scene
    assert budgets(tokens, k, "joint" if joint else "radius", weights) == greedy(tokens, k, weights, joint)


@given(scenes(), pools, starts, st.sampled_from(["cosine", "l1", "l2"]))
def test_a_total_is_spent_exactly_and_within_each_camera(scene, pool, start, metric):
    tokens, k, weights = scene
    found = order(tokens, k, pool, weights, start=start, metric=metric)
    assert len(found) == k and sorted(found[: len(tokens)]) == list(range(len(tokens)))
    assert all(1 <= found.count(camera) <= len(mine) for camera, mine in enumerate(tokens))
    everything = order(tokens, sum(map(len, tokens)), pool, weights, start=start, metric=metric)
    in_use = [everything[:k].count(camera) for camera in range(len(tokens))]
    assert in_use == [found.count(camera) for camera in range(len(tokens))]


@given(scenes(), pools, st.randoms(use_true_random=False))
def test_cameras_may_come_in_any_order(scene, pool, random):
    tokens, k, weights = scene
    places = list(range(len(tokens)))
    random.shuffle(places)
    moved = budgets([tokens[place] for place in places], k, pool, [weights[place] for place in places])
    before = budgets(tokens, k, pool, weights)
    assert moved == [before[place] for place in places]


@given(scenes(), pools)
def test_samples_together_share_as_each_alone(scene, pool):
    tokens, k, weights = scene
    other = [mine.flip(1) ** 3 for mine in tokens]
    policy = Dynamic(0.5, pool, dict(zip(names(len(tokens)), weights, strict=True)))
    counts = {camera: len(mine) for camera, mine in zip(names(len(tokens)), tokens, strict=True)}
    together = policy.allocate(torch.stack([torch.cat(tokens), torch.cat(other)]), counts, k)
    assert torch.equal(together[0], policy.allocate(torch.cat(tokens)[None], counts, k)[0])
    assert torch.equal(together[1], policy.allocate(torch.cat(other)[None], counts, k)[0])


@given(st.integers(1, 8), st.integers(2, 5), st.integers(0, 2**32), st.data())
def test_equal_cameras_share_equally_by_radius(count, cameras, seed, data):
    tokens = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    k = data.draw(st.integers(cameras, cameras * count))
    found = budgets([tokens] * cameras, k, "radius")
    assert max(found) - min(found) <= 1


@given(scenes(least=2), st.data())
def test_what_two_cameras_show_is_paid_for_once_in_a_joint_pool(scene, data):
    tokens, _, _ = scene
    k = data.draw(st.integers(len(tokens) + 1, sum(map(len, tokens)) + 1))
    found = budgets([*tokens, tokens[0]], k, "joint")
    assert found[0] + found[-1] <= len(tokens[0]) + 1


@given(scenes(), pools, st.data())
def test_a_camera_that_shows_one_thing_gets_one_token(scene, pool, data):
    tokens, _, _ = scene
    blank = torch.ones(data.draw(st.integers(2, 9)), 4, dtype=torch.float64)
    k = data.draw(st.integers(len(tokens) + 1, sum(map(len, tokens)) + 1))
    assert budgets([*tokens, blank], k, pool)[-1] == 1


@given(scenes(), st.floats(1, 20), st.data())
def test_a_larger_weight_never_loses_by_radius(scene, factor, data):
    tokens, k, weights = scene
    camera = data.draw(st.integers(0, len(tokens) - 1))
    more = [weight * factor if place == camera else weight for place, weight in enumerate(weights)]
    assert budgets(tokens, k, "radius", more)[camera] >= budgets(tokens, k, "radius", weights)[camera]


@given(scenes(), pools)
def test_only_proportions_of_weights_matter(scene, pool):
    tokens, k, weights = scene
    found = order(tokens, k, pool, weights)
    assert order(tokens, k, pool, [64 * weight for weight in weights]) == found
    assert order(tokens, k, pool, [weight**2 for weight in weights], exponent=0.5) == found
    assert order(tokens, k, pool, weights, exponent=0) == order(tokens, k, pool)


def test_weights_decide_where_they_differ_most():
    tokens = [torch.randn(8, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    for pool in POOLS:
        assert budgets(tokens, 10, pool, [1e-3, 1e-3, 1]) == [1, 1, 8]


def test_searched_weights(tmp_path):
    (tmp_path / "a.yaml").write_text("ratios: {CAM_0: 0.4, CAM_1: 0.1}\nprovenance: {study: tpe}\n")
    policy = Dynamic(0.2, weights="adaptive", file=str(tmp_path / "a.yaml"))
    assert isinstance(policy, RatioPolicy) and isinstance(policy, Allocator)
    assert policy.provenance == {"study": "tpe"}
    assert policy.describe(["CAM_0", "CAM_1"]) == {
        "shared": 0.2,
        "pool": "joint",
        "weights": {"CAM_0": 1.0, "CAM_1": 0.5},
    }
    assert policy.ratios(["CAM_0", "CAM_1"]) == {"CAM_0": 0.2, "CAM_1": 0.2}
    with pytest.raises(InputError, match=r"a\.yaml: no keep ratio for camera CAM_2"):
        policy.ratios(names(3))
    assert Dynamic(0.2).provenance is None and Dynamic(0.2).describe(names(2))["weights"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 1.5}, r"ratios.keep = 1.5 is outside \(0, 1\]"),
        ({"pool": "one"}, "ratios.pool=one: choose from joint, radius"),
        ({"metric": "dot"}, "ratios.metric=dot: choose from"),
        ({"start": "random"}, "ratios.start=random: choose from isolated, centroid"),
        ({"exponent": -1}, "ratios.exponent=-1"),
        ({"exponent": math.nan}, "ratios.exponent=nan"),
        ({"weights": "searched"}, "ratios.weights=searched: give a mapping"),
        ({"weights": {"CAM_0": 0}}, "CAM_0 has 0; give a number above 0"),
        ({"weights": {"CAM_0": "2"}}, "CAM_0 has 2"),
        ({"weights": {"CAM_0": math.inf}}, "CAM_0 has inf"),
        ({"weights": {"CAM_0": 1}}, "no weight for camera CAM_1"),
        ({"weights": {"CAM_0": 1, "CAM_1": 1, "CAM_X": 1}}, "weight for unknown camera CAM_X"),
        ({"weights": {"CAM_0": 1, "CAM_1": 0.01}, "exponent": 4}, "ratios.exponent=4 makes a camera count next to"),
        ({"weights": "adaptive", "file": "nowhere.yaml"}, "nowhere.yaml is missing"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(InputError, match=message) as error:
        Dynamic(**options).ratios(names(2))
    assert "\n" not in str(error.value)
