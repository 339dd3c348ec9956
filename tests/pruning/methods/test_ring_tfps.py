import pytest
import torch
from helpers.contexts import context
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.cameras import CAMERAS as RIG
from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, RingTFPS, prune
from prune2drive.pruning.methods.ring_tfps import neighbour
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.selection import farthest_points
from prune2drive.token_map import TokenMap

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def setting(tokens_CND, names, padding=0):
    """A context of one prompt with a camera for each pool, behind some padding."""
    cameras, count, width = tokens_CND.shape
    token_map = TokenMap.from_spans(
        {name: (i * count, (i + 1) * count) for i, name in enumerate(names)}, cameras * count
    )
    every = torch.arange(count)
    pools = [Pool("a", (name,), 0, token_map.positions(name) + padding, token_map, every) for name in names]
    embeddings_BPD = torch.cat([tokens_CND.new_ones(padding, width), tokens_CND.flatten(0, 1)])[None]
    return context(*pools, embeddings_BPD=embeddings_BPD)


def by_the_formula(tokens, others, k, penalty):
    """One token at a time; `others` are the neighbour's, None where there is none."""
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    weight = torch.ones(len(tokens), dtype=torch.float64)
    if others is not None:
        like = (unit @ (others / others.norm(dim=1, keepdim=True)).T).amax(dim=1)
        weight = 1 - penalty * (like - like.min() + 1e-6) / (like.max() - like.min() + 1e-6)
    alone = [min(float(distance[i, j]) for j in range(len(tokens)) if j != i) * weight[i] for i in range(len(tokens))]
    picks = [alone.index(max(alone))]
    while len(picks) < k:
        left = [i for i in range(len(tokens)) if i not in picks]
        picks.append(max(left, key=lambda i: weight[i] * min(float(distance[i, j]) for j in picks)))
    return picks


@given(st.integers(3, 12), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.9]), st.integers(0, 3), st.data())
def test_equals_the_formula_with_the_neighbour_on_the_left(n, seed, penalty, padding, data):
    names = ("CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT")
    tokens, k = drawn(4, n, 5, seed=seed), data.draw(st.integers(1, n))
    found = RingTFPS(penalty=penalty).select(tokens, k, setting(tokens, names, padding)).tolist()
    for camera, other in enumerate((2, None, None, 0)):
        expected = by_the_formula(tokens[camera], None if other is None else tokens[other], k, penalty)
        assert found[camera] == expected


def test_what_two_cameras_show_is_held_against_one():
    """An object that the front camera shares with the right one, in a scene of one colour each."""
    front, right = torch.eye(8)[:4].double(), torch.eye(8)[4:].double()
    tokens = torch.stack([front, torch.cat([right[:3], front[3:]])])
    found = RingTFPS(penalty=1.0).select(tokens, 4, setting(tokens, ("CAM_FRONT", "CAM_FRONT_RIGHT"))).tolist()
    assert found == [[0, 1, 2, 3], [0, 1, 2, 3]]
    swapped = RingTFPS(penalty=1.0).select(tokens, 4, setting(tokens, ("CAM_FRONT_RIGHT", "CAM_FRONT"))).tolist()
    assert swapped == [[0, 1, 2, 3], [0, 1, 2, 3]]
    first = tokens[:, [3, 0, 1, 2]]  # the shared object comes first, but for the camera that is held to it
    found = RingTFPS(penalty=1.0).select(first, 4, setting(first, ("CAM_FRONT", "CAM_FRONT_RIGHT"))).tolist()
    assert found == [[0, 1, 2, 3], [1, 2, 3, 0]]


def test_the_ring_is_nuscenes_or_the_order_of_the_prompt():
    clockwise = ["CAM_FRONT"]
    while len(clockwise) < 7:
        clockwise.append(next(camera for camera in RIG if neighbour(camera, RIG) == clockwise[-1]))
    assert clockwise[1:4] == ["CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK"] and clockwise[6] == "CAM_FRONT"
    assert neighbour("CAM_FRONT", ("CAM_FRONT", "CAM_BACK")) is None
    assert [neighbour(camera, ("a", "b", "c")) for camera in "abc"] == ["c", "a", "b"]
    assert neighbour("a", ("a",)) is None
    times = ("CAM_FRONT@0", "CAM_FRONT@1", "CAM_FRONT_LEFT@0", "CAM_FRONT_LEFT@1")
    assert [neighbour(view, times) for view in times] == ["CAM_FRONT_LEFT@0", "CAM_FRONT_LEFT@1", None, None]


def test_without_a_neighbour_or_a_penalty_it_is_farthest_points():
    tokens = drawn(2, 9, 4, seed=0)
    for names, penalty in ((("CAM_FRONT", "CAM_BACK"), 0.8), (("CAM_FRONT", "CAM_FRONT_RIGHT"), 0.0)):
        found = RingTFPS(penalty=penalty).select(tokens, 9, setting(tokens, names))
        assert torch.equal(found, farthest_points(tokens, 9))


def test_in_a_model_only_what_the_neighbour_shows_matters(make_family):
    """CAM_FRONT_LEFT is the neighbour of CAM_FRONT; batches, whose prompts have other lengths, change nothing."""
    family, kept = make_family("llava"), {}
    for name, method in (("ring", RingTFPS(penalty=0.9)), ("tfps", TFPS())):
        rows = []
        for which in ([0, 1], [0], [1]):
            texts = [TEXTS[row] for row in which]
            with prune(family.model, method, 5 / TOKENS, **family.naming(texts)) as trace:
                family.model(**family.inputs(texts, which))
            rows += trace.picked
        kept[name] = [{camera: picked.tolist() for camera, picked in row.items()} for row in rows]
        assert kept[name][:2] == kept[name][2:]
    for ring, tfps in zip(kept["ring"], kept["tfps"], strict=True):
        assert [camera for camera in CAMERAS if ring[camera] != tfps[camera]] == ["CAM_FRONT"]


def test_an_impossible_penalty():
    with pytest.raises(InputError, match="penalty=1.5 is no share"):
        RingTFPS(penalty=1.5)
