import pytest
import torch
from helpers.contexts import context, pools_of
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import MMR, TFPS, FastV, prune
from prune2drive.pruning.question_relevance import question_relevance
from prune2drive.pruning.selection import farthest_points
from prune2drive.pruning.vision import VisionTokens

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def select(importance_CN, tokens_CND, k, strength=0.5):
    seen = VisionTokens([importance_CN.flatten()], [torch.empty(0)], [torch.empty(0)])
    shown = context(*pools_of(tokens_CND.shape[1], CAMERAS[: len(tokens_CND)]), vision=lambda: seen)
    return MMR(importance="vision", strength=strength).select(tokens_CND, k, shown).tolist()


def reference(importance, tokens, k, strength):
    low, high = min(importance), max(importance)
    worth = [(each - low + 1e-6) / (high - low + 1e-6) for each in importance]
    unit = tokens / tokens.norm(dim=1, keepdim=True)
    picks = [max(range(len(worth)), key=lambda i: importance[i])]
    while len(picks) < k:
        left = [i for i in range(len(worth)) if i not in picks]
        alike = {i: max(float(unit[i] @ unit[j]) for j in picks) for i in left}
        picks.append(max(left, key=lambda i: strength * worth[i] - (1 - strength) * alike[i]))
    return picks


@given(st.integers(1, 14), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]), st.data())
def test_equals_the_formula_in_every_camera(n, seed, strength, data):
    tokens, importance = drawn(2, n, 5, seed=seed), drawn(2, n, seed=seed + 1)
    k = data.draw(st.integers(1, n))
    expected = [reference(importance[pool].tolist(), tokens[pool], k, strength) for pool in range(2)]
    assert select(importance, tokens, k, strength) == expected


@given(st.integers(2, 14), st.integers(0, 10**6))
def test_its_ends_are_importance_and_farthest_points(n, seed):
    tokens, importance = drawn(1, n, 5, seed=seed), drawn(1, n, seed=seed + 1)
    ranked = importance[0].argsort(descending=True).tolist()
    assert select(importance, tokens, n, 1.0) == [ranked]
    assert select(importance, tokens, n, 0.0) == farthest_points(tokens, n, start=ranked[0]).tolist()


def test_ties_go_to_the_lowest_index_and_copies_come_last():
    tokens = torch.eye(3, dtype=torch.float64).repeat(2, 1)[None]
    assert select(torch.ones(1, 6), tokens, 6) == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("scope", ["per_camera", "global"])
def test_importance_alone_is_fastv(make_family, scope):
    family, kept = make_family("qwen3_vl"), []
    for method in (FastV(scope=scope), MMR(strength=1.0, scope=scope), MMR(scope=scope), TFPS(layer=2, scope=scope)):
        with prune(family.model, method, 0.3, **family.naming(TEXTS)) as trace:
            family.model(**family.inputs(TEXTS))
        kept.append([[each.tolist() for each in row.values()] for row in trace.kept])
    assert kept[0] == kept[1]
    assert kept[2] not in (kept[0], kept[3])


@pytest.mark.parametrize("importance", ["attention", "vision", "question", "norm"])
def test_every_importance_is_read_and_batches_do_not_matter(make_family, importance):
    family, seen = make_family("llava"), {}

    class Probe(MMR):
        def select(self, tokens_CND, k, ctx):
            seen.update(tokens=tokens_CND, ctx=ctx)
            return super().select(tokens_CND, k, ctx)

    kept = []
    for rows in ([0, 1], [0], [1]):
        texts = [TEXTS[row] for row in rows]
        with prune(family.model, Probe(importance=importance), 4 / TOKENS, **family.naming(texts)) as trace:
            family.model(**family.inputs(texts, rows))
        kept += [[each.tolist() for each in row.values()] for row in trace.picked]
    assert kept[:2] == kept[2:]
    ctx = seen["ctx"]
    read = {
        "attention": lambda: ctx.of_pools(ctx.before.last_row()),
        "vision": lambda: ctx.vision().of_pools(ctx.pools)[0],
        "question": lambda: question_relevance(ctx),
        "norm": lambda: seen["tokens"].square().sum(dim=2).sqrt(),
    }[importance]()
    assert kept[2 + 1] == [
        reference(read[pool].tolist(), seen["tokens"][pool].double(), 4, 0.5) for pool in range(len(CAMERAS))
    ]


def test_bad_options_are_refused():
    for options, says in (
        ({"importance": "luck"}, "pruner.importance=luck: choose from attention, vision, question, norm"),
        ({"strength": 2}, "strength=2 is no share"),
        ({"layer": 0}, "layer=0 has no attention"),
    ):
        with pytest.raises(InputError, match=says):
            MMR(**options)
    assert MMR(layer=0, importance="norm").traits.shares_picks_per_frame
