import math

import pytest
import torch
from helpers.contexts import context, pools_of
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, prune

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]
WORDS = 3


def points(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def select(method, embeddings_PD, k, states_ND=None):
    """Picks of one camera, all but the last words of the prompt."""
    count = len(embeddings_PD) - WORDS
    is_text_P = torch.arange(len(embeddings_PD)) >= count
    ctx = context(*pools_of(count), embeddings_BPD=embeddings_PD[None], question_BP=is_text_P[None])
    tokens = embeddings_PD[:count] if states_ND is None else states_ND
    return method.select(tokens[None], k, ctx)[0].tolist()


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def scaled(scores):
    return [(score - min(scores) + 1e-6) / (max(scores) - min(scores) + 1e-6) for score in scores]


def by_the_formula(rows, k, first, weights):
    picks = [first]
    while len(picks) < k:
        left = [i for i in range(len(rows)) if i not in picks]
        picks.append(max(left, key=lambda i: weights[i] * min(1 - cosine(rows[i], rows[j]) for j in picks)))
    return picks


@pytest.mark.parametrize("strength", [0.5, 1, 3])
@pytest.mark.parametrize("relevance", ["question", "saliency"])
@given(st.integers(3, 14), st.integers(0, 10**6))
def test_distances_are_weighted(relevance, strength, n, seed):
    embeddings, states = points(n + WORDS, 5, seed), points(n, 4, seed + 1)
    picks = select(TFPS(relevance=relevance, strength=strength), embeddings, n, states)
    rows = states.tolist()
    if relevance == "question":
        text = embeddings[n:].tolist()
        scores = [math.fsum(cosine(row, word) for word in text) / WORDS for row in embeddings[:n].tolist()]
    else:
        units = [[x / math.hypot(*row) for x in row] for row in rows]
        scores = [1 - cosine(row, [math.fsum(column) for column in zip(*units, strict=True)]) for row in rows]
    weights = [score**strength for score in scaled(scores)]
    assert picks == by_the_formula(rows, n, picks[0], weights)
    alone = [weights[i] * min(1 - cosine(rows[i], rows[j]) for j in range(n) if j != i) for i in range(n)]
    assert alone[picks[0]] == pytest.approx(max(alone))


@given(st.integers(2, 14), st.integers(0, 10**6))
def test_no_strength_is_no_weight(n, seed):
    embeddings = points(n + WORDS, 5, seed)
    plain = select(TFPS(), embeddings, n)
    assert select(TFPS(relevance="question", strength=0), embeddings, n) == plain
    assert select(TFPS(relevance="saliency", strength=0), embeddings, n) == plain


@pytest.mark.parametrize(("relevance", "depends"), [(None, False), ("saliency", False), ("question", True)])
def test_only_relevance_to_the_question_needs_a_new_selection_for_each(make_family, relevance, depends):
    """Before the question's words can have changed anything: a frame's tokens serve all questions about it."""
    family = make_family("llava")
    kept = []
    for tail in ([31, 32], [41, 42, 43]):
        inputs = family.inputs(TEXTS[:1], [0])
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tail])], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with prune(family.model, TFPS(layer=2, relevance=relevance), 0.4, cameras=CAMERAS) as trace:
            family.model(**inputs)
        kept.append([picked.tolist() for picked in trace.picked[0].values()])
    assert (kept[0] != kept[1]) == depends


@pytest.mark.parametrize("layer", [0, 1])
def test_the_global_scope_is_greedy_k_centre_over_all_cameras(make_family, layer):
    family = make_family("internvl")
    inputs = family.inputs(TEXTS)
    states_BPD = family.model(**inputs, output_hidden_states=True).hidden_states[layer].double()
    with prune(family.model, TFPS(layer=layer, scope="global"), 0.3, cameras=CAMERAS) as trace:
        family.model(**inputs)
    for row, token_map in enumerate(trace.token_maps):
        at = torch.cat([token_map.positions(camera) for camera in CAMERAS]) - token_map.length
        union, n = states_BPD[row, at].tolist(), len(at)
        alone = [min(1 - cosine(union[i], union[j]) for j in range(n) if j != i) for i in range(n)]
        starts = sorted(range(n), key=lambda i: -alone[i])[:2]  # each other's neighbour, or not
        per_camera = [
            {camera: [i % TOKENS for i in picks if i // TOKENS == place] for place, camera in enumerate(CAMERAS)}
            for picks in (by_the_formula(union, 15, start, [1] * n) for start in starts)
        ]
        assert {camera: picked.tolist() for camera, picked in trace.picked[row].items()} in per_camera


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relevance": "depth"}, "pruner.relevance=depth: choose from null, question, saliency"),
        ({"relevance": "saliency", "mode": "nearest"}, "relevance=saliency weighs mode=farthest"),
        ({"strength": -0.5}, "strength=-0.5"),
        ({"strength": float("nan")}, "strength=nan"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        TFPS(**options)


def test_the_question_must_be_there():
    ctx = context(*pools_of(4), embeddings_BPD=points(4, 3, 0)[None], question_BP=torch.zeros(1, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="sample a: no text after the last image"):
        TFPS(relevance="question").select(points(4, 3, 0)[None], 2, ctx)
