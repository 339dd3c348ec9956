import math
from dataclasses import replace

import pytest
import torch
from helpers.contexts import context, pools_of
from helpers.families import CAMERAS, TOKENS
from helpers.reference import by_the_determinant, cosine, kernel
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import CDPruner, prune
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.question_relevance import question_relevance
from prune2drive.pruning.selection import determinantal
from prune2drive.token_map import TokenMap

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]


def points(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def setting(embeddings_PD, count, cameras=1):
    """A prompt of the cameras' tokens, all else behind them being the question."""
    is_text_P = torch.arange(len(embeddings_PD)) >= count * cameras
    pools = pools_of(count, CAMERAS[:cameras])
    spans = {camera: (i * count, (i + 1) * count) for i, camera in enumerate(CAMERAS[:cameras])}
    token_map = TokenMap.from_spans(spans, len(embeddings_PD))
    pools = tuple(Pool(p.sample_id, p.cameras, 0, p.at_N, token_map, p.of_N) for p in pools)
    return context(*pools, embeddings_BPD=embeddings_PD[None], question_BP=is_text_P[None])


def select(method, embeddings_PD, count, k, cameras=1):
    ctx = setting(embeddings_PD, count, cameras)
    tokens = torch.stack([embeddings_PD[pool.at_N] for pool in ctx.pools])
    return method.select(tokens, k, ctx).tolist()


def relevance(rows, text, everything):
    """Mean cosine with the text, between the smallest and the largest of everything."""
    mean = {tuple(row): math.fsum(cosine(row, word) for word in text) / len(text) for row in everything}
    low, high = min(mean.values()), max(mean.values())
    return [(mean[tuple(row)] - low + 1e-6) / (high - low) for row in rows]


@pytest.mark.parametrize("span", ["pool", "sample"])
@given(st.integers(3, 8), st.integers(1, 4), st.integers(0, 10**6), st.data())
def test_equals_the_determinant_in_every_camera(span, n, words, seed, data):
    embeddings, k = points(2 * n + words, 10, seed=seed), data.draw(st.integers(1, n))
    embeddings[n : 2 * n] += embeddings[-1]  # a camera that the question is about
    rows = embeddings.tolist()
    cameras, text = (rows[:n], rows[n : 2 * n]), rows[2 * n :]
    expected = []
    for mine in cameras:
        quality = relevance(mine, text, mine if span == "pool" else rows[: 2 * n])
        expected.append(by_the_determinant(kernel(mine, quality), k))
    assert select(CDPruner(span=span), embeddings, n, k, cameras=2) == expected


@given(st.integers(2, 12), st.integers(0, 10**6))
def test_equal_relevance_is_diversity_alone(n, seed):
    """All tokens are worth the same by themselves, so the first one is picked first."""
    tokens = points(n, 12, seed=seed)
    expected = by_the_determinant(kernel(tokens.tolist(), [1.0] * n), n, first=[0])
    unlike_any = torch.zeros(1, 12, dtype=torch.float64)
    assert select(CDPruner(), torch.cat([tokens, unlike_any]), n, n) == [expected]
    assert select(CDPruner(strength=0), torch.cat([tokens, points(3, 12, seed=seed + 1)]), n, n) == [expected]


@given(st.permutations(range(8)))
def test_orthogonal_tokens_come_by_relevance(order):
    likeness = torch.empty(8, dtype=torch.float64)
    likeness[list(order)] = torch.linspace(8, 1, 8, dtype=torch.float64)
    embeddings = torch.cat([torch.eye(8, dtype=torch.float64), likeness[None]])
    assert select(CDPruner(), embeddings, 8, 8) == [list(order)]


@given(st.integers(2, 10), st.integers(0, 10**6))
def test_what_a_token_adds_never_grows_and_smaller_budgets_are_prefixes(n, seed):
    tokens, quality = points(n, 12, seed=seed), points(n, seed=seed + 1)
    unit = torch.nn.functional.normalize(tokens, dim=1)
    picks = determinantal((unit @ unit.T)[None], quality[None], n)[0].tolist()
    whole = kernel(tokens.tolist(), quality.exp().tolist())
    logs = [0.0] + [torch.linalg.slogdet(whole[picks[:k]][:, picks[:k]])[1].item() for k in range(1, n + 1)]
    gains = [after - before for before, after in zip(logs, logs[1:], strict=False)]
    assert all(larger >= smaller - 1e-9 for larger, smaller in zip(gains, gains[1:], strict=False))
    for k in range(1, n):
        assert determinantal((unit @ unit.T)[None], quality[None], k)[0].tolist() == picks[:k]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_copies_and_tokens_within_the_span_of_the_kept_come_last_by_relevance(dtype):
    """12 tokens in 5 dimensions and a copy of each: five span everything, the rest follow by quality."""
    tokens = points(12, 5, seed=0).to(dtype).repeat(2, 1)
    quality = points(24, seed=1).to(dtype)
    unit = torch.nn.functional.normalize(tokens, dim=1)
    picks = determinantal((unit @ unit.T)[None], quality[None], 24)[0].tolist()
    assert torch.linalg.matrix_rank(unit[picks[:5]].double(), rtol=1e-3) == 5
    assert picks[5:] == sorted(set(range(24)) - set(picks[:5]), key=lambda i: -quality[i])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_copy_of_a_kept_token_is_kept_last_however_relevant(dtype):
    embeddings = points(9, 12, seed=2).to(dtype)
    embeddings[8] = embeddings[0]  # the question is the first token
    embeddings[5] = embeddings[0]
    picks = select(CDPruner(), embeddings, 8, 8)[0]
    assert picks[0] == 0 and picks[-1] == 5


@given(st.integers(0, 10**6))
def test_budgets_beyond_the_rank_are_met_as_in_doubles(seed):
    """Tokens in three dimensions but for noise of a thousandth, in which all later picks differ."""
    tokens = (points(40, 3, seed=seed) @ points(3, 32, seed=seed + 1) + 1e-3 * points(40, 32, seed=seed + 2)).float()
    ones = by_the_determinant(kernel(tokens.tolist(), [1.0] * 40), 16, first=[0])
    assert select(CDPruner(strength=0), torch.cat([tokens, points(2, 32, seed=seed).float()]), 40, 16) == [ones]


def test_zero_tokens_and_many_of_them():
    zeros = torch.zeros(1, 40, 40)
    assert determinantal(zeros, torch.zeros(1, 40), 40).tolist() == [list(range(40))]
    tokens = points(1, 600, 8, seed=0).float()
    picks = determinantal(tokens @ tokens.transpose(1, 2), torch.zeros(1, 600), 600)
    assert sorted(picks[0].tolist()) == list(range(600))


def test_another_question_keeps_other_tokens(make_family):
    family = make_family("llava")
    with prune(family.model, CDPruner(), 0.3, cameras=CAMERAS) as trace:
        family.model(**family.inputs(TEXTS, [0, 0]))
    assert [kept.tolist() for kept in trace.kept[0].values()] != [kept.tolist() for kept in trace.kept[1].values()]


@pytest.mark.parametrize("span", ["pool", "sample"])
def test_equals_the_determinant_in_a_model(make_family, span):
    """Left padding included; the text begins behind the last visual token."""
    family = make_family("internvl")
    inputs = family.inputs(TEXTS)
    embeddings_BPD = family.model(**inputs, output_hidden_states=True).hidden_states[0].double()
    with prune(family.model, CDPruner(span=span), 0.3, cameras=CAMERAS) as trace:
        family.model(**inputs)
    for row, token_map in enumerate(trace.token_maps):
        rows = embeddings_BPD[row, -token_map.length :].tolist()
        spans = {camera: [rows[i] for i in token_map.positions(camera).tolist()] for camera in CAMERAS}
        text = rows[int(token_map.positions(CAMERAS[-1])[-1]) + 1 :]
        for camera, mine in spans.items():
            quality = relevance(mine, text, mine if span == "pool" else sum(spans.values(), []))
            assert trace.picked[row][camera].tolist() == by_the_determinant(kernel(mine, quality), 5)
    assert len(mine) == TOKENS


def test_one_camera_changes_another_only_where_relevance_is_scaled_over_all():
    moved = []
    for seed in range(4):
        embeddings = points(24, 12, seed=seed)
        changed = embeddings.clone()
        changed[10:20] = embeddings[-1] + 0.1 * changed[10:20]
        before, after = (
            {span: select(CDPruner(span=span), these, 10, 4, 2)[0] for span in ("pool", "sample")}
            for these in (embeddings, changed)
        )
        assert before["pool"] == after["pool"]
        moved.append(before["sample"] != after["sample"])
    assert any(moved)


def test_padding_takes_no_part_in_the_scale():
    """The least relevant token of all cameras is the least one there is, padding on the left or not."""
    embeddings = points(23, 12, seed=6)
    padded = torch.cat([embeddings[-1:].expand(4, -1), embeddings])
    ctx = setting(embeddings, 10, 2)
    pools = tuple(replace(pool, at_N=pool.at_N + 4) for pool in ctx.pools)
    shifted = context(*pools, embeddings_BPD=padded[None], question_BP=(torch.arange(27) >= 24)[None])
    torch.testing.assert_close(question_relevance(shifted, "sample"), question_relevance(ctx, "sample"))


def by_openvino(rows, text, weight):
    """Relevance and kernel as OpenVINO GenAI's source has them, but for the token of least relevance, which has 0."""
    mean = torch.tensor(text, dtype=torch.float64).mean(dim=0).tolist()
    likeness = [cosine(row, mean) for row in rows]
    low, high = min(likeness), max(likeness)
    quality = torch.tensor([(value - low) / (high - low) for value in likeness], dtype=torch.float64)
    similarity = kernel(rows, [1.0] * len(rows))
    return (1 - weight) * similarity + weight * quality[:, None] * similarity * quality


@given(st.integers(2, 9), st.sampled_from([0.0, 0.25, 0.5, 0.9]), st.integers(0, 10**6), st.data())
def test_openvinos_kernel_and_text(n, weight, seed, data):
    """The text in front of the images counts too; the tokens that touch an image, markers, do not."""
    k, rows = data.draw(st.integers(1, n)), points(n + 6, 12, seed=seed)
    token_map = TokenMap.from_spans({"CAM_FRONT": (3, n + 3)}, n + 6)
    pool = Pool("a", ("CAM_FRONT",), 0, token_map.positions("CAM_FRONT"), token_map, torch.arange(n))
    ctx = context(pool, embeddings_BPD=rows[None], question_BP=(torch.arange(n + 6) >= n + 3)[None])
    tokens, text = rows[3 : n + 3], [*rows[:2].tolist(), *rows[n + 4 :].tolist()]
    picks = CDPruner(relevance="prompt", relevance_weight=weight).select(tokens[None], k, ctx)[0].tolist()
    expected = by_openvino(tokens.tolist(), text, weight)
    first = [0] if weight == 0 else []  # all are worth the same by themselves
    assert picks == by_the_determinant(expected, k, first)


@given(st.integers(1, 9), st.integers(0, 10**6), st.data())
def test_halves_have_a_budget_and_a_scale_each(n, seed, data):
    """Of an odd number of tokens and of an odd budget the second half has one more; picks come in turns."""
    rows, k, first = points(n + 4, 12, seed=seed), data.draw(st.integers(1, n)), n // 2
    picks = select(CDPruner(relevance="prompt", relevance_weight=0.5, halves=True), rows, n, k)[0]
    tokens, text = rows[:n].tolist(), rows[n + 1 :].tolist()
    if n == 1:
        assert picks == [0]
        return
    front, back = (
        by_the_determinant(by_openvino(part, text, 0.5), budget) if len(part) > 1 else [0] * budget
        for part, budget in ((tokens[:first], k // 2), (tokens[first:], k - k // 2))
    )
    assert picks[1::2] == front and picks[::2] == [first + pick for pick in back]


def test_text_alone_counts_in_a_batch_with_padding(make_family):
    """The same picks for a prompt by itself and padded beside a longer one."""
    family, method = make_family("qwen2_5_vl"), CDPruner(relevance="prompt", halves=True)
    kept = []
    for texts, row in ((TEXTS[:1], 0), (TEXTS, 0)):
        with prune(family.model, method, 0.3, cameras=CAMERAS) as trace:
            family.model(**family.inputs(texts))
        kept.append([picks.tolist() for picks in trace.picked[row].values()])
    assert kept[0] == kept[1]


def test_bad_options_and_a_prompt_without_a_question():
    with pytest.raises(InputError, match="pruner.span=camera: choose from pool, sample"):
        CDPruner(span="camera")
    for strength in (-1.0, float("nan")):
        with pytest.raises(InputError, match="strength="):
            CDPruner(strength=strength)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="relevance_weight="):
            CDPruner(relevance_weight=weight)
    with pytest.raises(InputError, match="sample a: no text to compare tokens with"):
        select(CDPruner(relevance="prompt"), points(9, 4, seed=0), 8, 2)
    with pytest.raises(InputError, match="sample a: no text after the last image"):
        select(CDPruner(), points(8, 4, seed=0), 8, 2)
