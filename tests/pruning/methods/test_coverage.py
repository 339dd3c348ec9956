"""SCOPE and MMTok: coverage that is weighted, of tokens and of the question."""

import math

import pytest
import torch
from helpers.contexts import context, pools_of
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import SCOPE, FacilityLocation, MMTok, prune
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.selection import greedy_coverage
from prune2drive.pruning.vision import VisionTokens
from prune2drive.token_map import TokenMap

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def greedily(covers, k, weight):
    """Picks of greedy coverage of `covers[token][thing]` from 0, and how near the closest decision was."""
    picks, cover, closest = [], [0.0] * len(covers[0]), math.inf
    while len(picks) < k:
        gains = {
            j: weight[j] * math.fsum(max(0.0, own - best) for own, best in zip(covers[j], cover, strict=True))
            for j in range(len(covers))
            if j not in picks
        }
        first, *others = sorted(gains, key=lambda j: (-gains[j], j))
        closest = min([closest, *(gains[first] - gains[j] for j in others[:1])])
        picks.append(first)
        cover = [max(own, best) for own, best in zip(covers[first], cover, strict=True)]
    return picks, closest


def softmax(row, temperature):
    most = max(row)
    shares = [math.exp((each - most) / temperature) for each in row]
    return [share / math.fsum(shares) for share in shares]


@given(st.integers(3, 14), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.data())
def test_scope_equals_the_formula_in_every_camera(n, seed, alpha, data):
    features, received = drawn(2, n, 5, seed=seed), drawn(2, n, seed=seed + 1).abs() / 100
    k = data.draw(st.integers(1, n))
    seen = VisionTokens([received.flatten()], [features.flatten(0, 1)], [features.flatten(0, 1)])
    shown = context(*pools_of(n, CAMERAS[:2]), vision=lambda: seen)
    found = SCOPE(alpha=alpha).select(drawn(2, n, 3, seed=0), k, shown).tolist()
    for pool in range(2):
        rows = features[pool].tolist()
        covers = [[cosine(a, b) for b in rows] for a in rows]
        expected, closest = greedily(covers, k, [each**alpha for each in received[pool].tolist()])
        assert found[pool] == expected or closest < 1e-12


def question(tokens_ND, text_TD, before=0):
    """One camera's tokens and the text behind them."""
    count, length = len(tokens_ND), before + len(tokens_ND) + len(text_TD)
    token_map = TokenMap.from_spans({"CAM_FRONT": (before, before + count)}, length)
    pool = Pool("a", ("CAM_FRONT",), 0, torch.arange(before, before + count), token_map, torch.arange(count))
    embeddings_PD = torch.cat([text_TD[:1].expand(before, -1), tokens_ND, text_TD])
    is_text_P = torch.arange(length) >= before + count
    return {"pool": pool, "embeddings_BPD": embeddings_PD[None], "question_BP": is_text_P[None]}


@pytest.mark.parametrize("features", ["tower", "tokens"])
@given(st.integers(3, 12), st.integers(1, 5), st.integers(0, 10**6), st.data())
def test_mmtok_equals_the_formula(features, n, words, seed, data):
    tokens, text, tower = drawn(n, 6, seed=seed), drawn(words, 6, seed=seed + 1), drawn(n, 5, seed=seed + 2)
    k, alpha = data.draw(st.integers(1, n)), data.draw(st.sampled_from([0.0, 0.5, 2.0]))
    given_ctx = question(tokens, text, before=2)
    seen = VisionTokens([torch.rand(n)], [tower], [tower])
    shown = context(given_ctx.pop("pool"), **given_ctx, vision=lambda: seen)
    method = MMTok(alpha=alpha, text_temperature=0.1, image_temperature=0.3, features=features)
    found = method.select(tokens[None], k, shown)[0].tolist()
    rows, seen_rows = tokens.tolist(), (tower if features == "tower" else tokens).tolist()
    of_text = [[p / words for p in softmax([cosine(word, a) for a in rows], 0.1)] for word in text.tolist()]
    of_image = [[alpha * q / n for q in softmax([cosine(b, a) for a in seen_rows], 0.3)] for b in seen_rows]
    covers = [list(column) for column in zip(*of_text, *of_image, strict=True)]
    expected, closest = greedily(covers, k, [1.0] * n)
    assert found == expected or closest < 1e-7  # cosines with the text are in float32


def test_a_token_like_the_question_comes_first():
    tokens, text = torch.eye(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)[4:5]
    given_ctx = question(tokens, text)
    shown = context(given_ctx.pop("pool"), **given_ctx)
    assert MMTok(features="tokens").select(tokens[None], 6, shown).tolist() == [[4, 0, 1, 2, 3, 5]]


def test_smaller_budgets_are_prefixes_and_small_gains_are_no_ties():
    """Coverage of a millionth decides as that of one does."""
    covers = drawn(1, 20, 30, seed=0).abs()
    whole = greedy_coverage(covers, 20)
    for k in (1, 7, 19):
        assert torch.equal(greedy_coverage(covers, k), whole[:, :k])
    assert torch.equal(greedy_coverage((covers * 1e-6).float(), 12), whole[:, :12])
    assert torch.equal(greedy_coverage(covers, 20, weight_CN=torch.full((1, 20), 1e-6).double()), whole)


@pytest.mark.parametrize("method", [MMTok(features="tokens"), MMTok(), SCOPE(), SCOPE(scope="global")], ids=repr)
def test_the_rest_of_a_batch_does_not_matter(make_family, method):
    family, kept = make_family("llava"), []
    for rows in ([0, 1], [0], [1]):
        texts = [TEXTS[row] for row in rows]
        with prune(family.model, method, 4 / TOKENS, **family.naming(texts)) as trace:
            family.model(**family.inputs(texts, rows))
        kept += [[picked.tolist() for picked in row.values()] for row in trace.picked]
    assert kept[:2] == kept[2:]
    with prune(family.model, FacilityLocation(layer=0), 4 / TOKENS, **family.naming(TEXTS)) as trace:
        family.model(**family.inputs(TEXTS, [0, 1]))
    assert [[picked.tolist() for picked in row.values()] for row in trace.picked] != kept[:2]


def test_bad_options_and_a_prompt_without_a_question():
    for options, says in (
        ({"alpha": -1}, "MMTok: alpha=-1"),
        ({"text_temperature": 0}, "text_temperature=0 must be above 0"),
        ({"features": "pixels"}, "pruner.features=pixels: choose from tower, tokens"),
    ):
        with pytest.raises(InputError, match=says):
            MMTok(**options)
    with pytest.raises(InputError, match="SCOPE: alpha=nan"):
        SCOPE(alpha=float("nan"))
    given_ctx = question(drawn(4, 3, seed=0), drawn(0, 3, seed=0))
    with pytest.raises(InputError, match="sample a: no text after the last image"):
        MMTok(features="tokens").select(drawn(1, 4, 3, seed=0), 2, context(given_ctx.pop("pool"), **given_ctx))
