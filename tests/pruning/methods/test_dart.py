import copy
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from helpers.contexts import context, pools_of
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import DART, Pruner, Traits, prune

TEXTS = [[11, 12, 13, 14, 15], [21, 22]]
LAYER = 2


def cosine(a, b):
    return float(a @ b / a.norm() / b.norm())


def by_the_rule(key_norms, states, candidates, question, k, images, texts):
    """The rule, token by token, in positions of the prompt: pivots by norm, and what each pivot takes in turn."""
    best = sorted(candidates, key=lambda i: (-key_norms[i], i))[:images]
    words = sorted(sorted(question, key=lambda i: (-key_norms[i], i))[:texts])
    pivots = sorted(best) + words
    left, taken = [i for i in candidates if i not in best], [[] for _ in pivots]

    def take(pivot, count):
        chosen = sorted(left, key=lambda i: (cosine(states[i], states[pivots[pivot]]), i))[:count]
        left[:] = [i for i in left if i not in chosen]
        taken[pivot] += chosen

    share = k // len(pivots)
    for pivot in range(len(pivots)):
        take(pivot, share)
    raw = len(candidates) - len(left)
    for pivot in range(len(pivots)):
        if raw < k:
            take(pivot, 1)
    rounds = [mine[turn] for turn in range(share + 1) for mine in taken if turn < len(mine)]
    return (best + rounds)[:k], raw


def setting(count, texts, seed, cameras=1, width=6):
    """Random keys and states of a prompt: the cameras, then the question."""
    length = count * cameras + texts
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(1, 2, length, 3, generator=generator)
    states = torch.randn(1, length, width, generator=generator)
    pools = pools_of(count, CAMERAS[:cameras])
    given = {
        "before": SimpleNamespace(keys=lambda rotated=True: keys),
        "at": SimpleNamespace(hidden_BPD=states),
        "question_BP": (torch.arange(length) >= count * cameras)[None],
    }
    return context(*pools, **given), keys, states


def select(method, ctx, states, k):
    tokens = torch.stack([states[pool.row, pool.at_N] for pool in ctx.pools])
    return method.select(tokens, k, ctx)


@given(st.integers(1, 40), st.integers(0, 7), st.integers(1, 5), st.integers(0, 5), st.integers(0, 10**6), st.data())
def test_equals_the_rule_in_every_camera(count, words, images, texts, seed, data):
    k = data.draw(st.integers(1, count))
    ctx, keys, states = setting(count, words, seed, cameras=2)
    found = select(DART(image_pivots=images, text_pivots=texts), ctx, states, k)
    norms, question = keys.abs().sum(dim=(1, 3))[0].tolist(), list(range(2 * count, 2 * count + words))
    for place, pool in enumerate(ctx.pools):
        candidates = pool.at_N.tolist()
        picks, raw = by_the_rule(norms, states[0].double(), candidates, question, k, images, texts)
        assert pool.at_N[found.picks_CK[place]].tolist() == picks
        assert found.raw_C[place] == raw


@dataclass
class Probe(Pruner):
    """Keeps the first tokens and remembers the text after the last image."""

    layer: int = LAYER
    traits = Traits(needs_attention=True)

    def select(self, tokens_CND, k, ctx):
        self.question_BP = ctx.question_BP
        return torch.arange(k).expand(len(tokens_CND), k)


@pytest.mark.parametrize("scope", ["per_camera", "global"])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_onevision_llama"])
def test_equals_the_rule_in_a_model(make_family, name, scope):
    """Keys are those that the model itself puts into its cache, states its own hidden states."""
    family = copy.deepcopy(make_family(name))
    weight = family.model.get_decoder().norm.weight
    weight.data = torch.rand(len(weight), generator=torch.Generator().manual_seed(0)) ** 3
    inputs, naming = family.inputs(TEXTS), family.naming(TEXTS)
    whole = family.model(**inputs, output_hidden_states=True, use_cache=True)
    probe = Probe()
    with prune(family.model, probe, 0.3, **naming):
        family.model(**inputs)
    with prune(family.model, DART(layer=LAYER, scope=scope), 0.7, **naming) as trace:
        family.model(**inputs)
    norms_BP = whole.past_key_values.layers[LAYER - 1].keys.abs().sum(dim=(1, 3))
    states_BPD = family.model.get_decoder().norm(whole.hidden_states[LAYER]).double()
    for row, token_map in enumerate(trace.token_maps):
        start = norms_BP.shape[1] - token_map.length
        question = probe.question_BP[row].nonzero().flatten().tolist()
        spans = {camera: (token_map.positions(camera) + start).tolist() for camera in CAMERAS}
        if scope == "global":
            candidates = sum(spans.values(), [])
            found, raw = by_the_rule(norms_BP[row], states_BPD[row], candidates, question, 33, 4, 4)
            expected = {camera: [i - span[0] for i in found if i in span] for camera, span in spans.items()}
        else:
            every = {
                camera: by_the_rule(norms_BP[row], states_BPD[row], span, question, 11, 4, 4)
                for camera, span in spans.items()
            }
            expected = {camera: [i - spans[camera][0] for i in picks] for camera, (picks, _) in every.items()}
            raw = sum(count for _, count in every.values())
        assert {camera: picked.tolist() for camera, picked in trace.picked[row].items()} == expected
        assert trace.raw_tokens[row] == raw


@pytest.mark.parametrize("count", [1, 12, 255, 260, 576, 1280])
@pytest.mark.parametrize("ratio", [0.1, 0.222, 0.25, 0.5])
def test_counts(count, ratio):
    """Exactly the budget; the rule's own count is that of the paper's formula."""
    k = max(1, int(ratio * count + 0.5))
    ctx, _, states = setting(count, 9, count)
    found = select(DART(), ctx, states, k)
    assert len(found.picks_CK[0].unique()) == k
    assert found.raw_C == [min(count, 4) + 8 * (k // 8) if count > 4 else count]


@pytest.mark.parametrize(("count", "k", "raw"), [(576, 127, 124), (729, 73, 76), (729, 182, 180)])
def test_counts_of_the_released_code(count, k, raw):
    ctx, _, states = setting(count, 9, 0)
    assert select(DART(), ctx, states, k).raw_C == [raw]


def test_the_question_guides_the_choice_and_may_be_short_or_missing():
    ctx, keys, states = setting(60, 6, 0)
    before = select(DART(), ctx, states, 20).picks_CK
    states[0, 60:] = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    after = select(DART(), ctx, states, 20).picks_CK
    assert torch.equal(before[:, :4], after[:, :4]) and set(before[0].tolist()) != set(after[0].tolist())
    for words in (0, 1, 3):
        short, _, states = setting(60, words, 0)
        found = select(DART(), short, states, 20)
        assert len(found.picks_CK[0].unique()) == 20
        assert found.raw_C == [4 + (4 + words) * (20 // (4 + words))]


def test_copies_of_a_pivot_are_kept_last():
    """Half of the tokens are copies of the one with the largest key, which is the only pivot."""
    ctx, keys, states = setting(TOKENS * 2, 0, 3)
    keys[0, :, 5] = 100
    states[0, TOKENS:] = states[0, 5]
    kept = select(DART(image_pivots=1), ctx, states, TOKENS).picks_CK[0].tolist()
    assert kept[0] == 5 and sorted(kept) == list(range(TOKENS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_pivots": 0}, "pruner.image_pivots=0: use a whole number, 1 or more"),
        ({"text_pivots": -1}, "text_pivots=-1"),
        ({"text_pivots": 1.5}, "text_pivots=1.5"),
        ({"layer": 0}, "layer=0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        DART(**options)
