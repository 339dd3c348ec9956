import math

import pytest
import torch
from helpers.contexts import context, pools_of
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import HoloV, prune
from prune2drive.pruning.vision import VisionTokens

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def select(received_CN, tokens_CND, k, **options):
    seen = VisionTokens([received_CN.flatten()], [tokens_CND.flatten(0, 1)], [tokens_CND.flatten(0, 1)])
    shown = context(*pools_of(received_CN.shape[1], CAMERAS[: len(received_CN)]), vision=lambda: seen)
    return HoloV(**options).select(tokens_CND, k, shown)


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def score(attention, rows, alpha):
    """Of a part, as in the paper and the released code."""
    attention, size = [1000 * each for each in attention], len(rows)
    if size == 1:
        return attention[0]
    variances = []
    for i in range(size):
        row = [cosine(rows[i], rows[j]) if i != j else 0.0 for j in range(size)]
        mean = math.fsum(row) / (size - 1)
        variances.append(math.fsum((each - mean) ** 2 for each in row) / (size - 1))
    scale = math.fsum(attention) / size / (math.fsum(variances) / size + 1e-6)
    return math.fsum(a + alpha * scale * v for a, v in zip(attention, variances, strict=True)) / size


def reference(attention, rows, k, parts, alpha):
    """Kept tokens, handed out to the parts one at a time."""
    sizes = [len(rows) // parts + (part < len(rows) % parts) for part in range(parts)]
    starts = [sum(sizes[:part]) for part in range(parts)]
    mine = [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True) if size]
    scores = [score([attention[i] for i in part], [rows[i] for i in part], alpha) for part in mine]
    ranked = [sorted(part, key=lambda i: (-attention[i], i)) for part in mine]
    quotas = [math.floor(k * each / (math.fsum(scores) + 1e-6)) for each in scores]
    kept = [i for part, quota in zip(ranked, quotas, strict=True) for i in part[:quota]]
    left = [part[quota:] for part, quota in zip(ranked, quotas, strict=True)]
    turns = sorted(range(len(mine)), key=lambda part: (-scores[part], part))
    while len(kept) < k:
        for part in turns:
            if left[part] and len(kept) < k:
                kept.append(left[part].pop(0))
    return sorted(kept)


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0.0, 0.09, 5.0]), st.data())
def test_equals_the_definition_in_every_camera(n, parts, seed, alpha, data):
    tokens, k = drawn(2, n, 4, seed=seed), data.draw(st.integers(1, n))
    received = drawn(2, n, seed=seed + 1).abs() ** data.draw(st.sampled_from([1, 6]))
    received = received / received.sum(dim=1, keepdim=True)
    found = select(received, tokens, k, parts=parts, alpha=alpha)
    for pool in range(2):
        expected = reference(received[pool].tolist(), tokens[pool].tolist(), k, parts, alpha)
        assert sorted(found[pool].tolist()) == expected


@given(st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([0.0, 0.09, 5.0]))
def test_a_part_s_score(size, seed, alpha):
    received, tokens = drawn(2, size, seed=seed).abs(), 0.1 * drawn(2, size, 4, seed=seed + 1) + 1
    expected = [score(received[pool].tolist(), tokens[pool].tolist(), alpha) for pool in range(2)]
    assert HoloV(alpha=alpha).score(received, tokens).tolist() == pytest.approx(expected, rel=1e-9)


def test_what_a_part_cannot_hold_goes_to_the_others_by_score():
    """The first part is worth everything, and has four tokens."""
    received = torch.tensor([[0.7, 0.1, 0.1, 0.1] + [0.0, 1e-6, 0.0, 0.0] + [0.0, 0.0, 2e-6, 0.0]])
    tokens = drawn(1, 12, 4, seed=0)
    assert select(received, tokens, 6, parts=3, alpha=0).tolist() == [[0, 1, 2, 3, 10, 5]]


def test_equal_parts_share_equally_and_ties_go_to_the_first():
    received, tokens = torch.ones(1, 16) / 16, torch.eye(16)[None]
    assert select(received, tokens, 6, parts=4).tolist() == [[0, 4, 8, 12, 1, 5]]
    assert sorted(select(received, tokens, 16, parts=4)[0].tolist()) == list(range(16))


@pytest.mark.parametrize("scope", ["per_camera", "global"])
def test_the_rest_of_a_batch_does_not_matter(make_family, scope):
    family, kept = make_family("internvl"), []
    for rows in ([0, 1], [0], [1]):
        texts = [TEXTS[row] for row in rows]
        with prune(family.model, HoloV(scope=scope, parts=4), 5 / TOKENS, **family.naming(texts)) as trace:
            family.model(**family.inputs(texts, rows))
        kept += [[each.tolist() for each in row.values()] for row in trace.kept]
    assert kept[:2] == kept[2:] and kept[0] != kept[1]


@pytest.mark.parametrize(("options", "says"), [({"parts": 0}, "pruner.parts=0"), ({"alpha": -1.0}, "alpha=-1.0")])
def test_bad_options_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        HoloV(**options)
