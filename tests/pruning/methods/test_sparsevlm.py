import itertools
from dataclasses import dataclass

import pytest
import torch
from helpers import families
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from prune2drive.errors import InputError
from prune2drive.pruning import SparseVLM, prune
from prune2drive.pruning.methods import sparsevlm
from prune2drive.pruning.methods.sparsevlm import recycle
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.surgery.prompt import PromptInfo

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25], [31]]
COUNTS = [3, 2, 3]
VERSIONS = ("1.5", "2")


# Sizes


@pytest.mark.parametrize(
    ("version", "tables"),
    [
        ("1.5", [[300, 200, 110], [303, 110, 36], [238, 48, 26], [66, 30, 17]]),
        ("2", [[300, 200, 118], [238, 108, 60], [246, 54, 28], [66, 34, 20]]),
    ],
)
def test_the_authors_sizes(version, tables):
    method = SparseVLM(version=version)
    assert method.resolve(32).cuts == (3, 7, 16)
    for table in tables:
        assert method.sizes(table[-1], 576) == table
        assert method.sizes(10 * table[-1], 5760) == [10 * size for size in table]


@given(st.sampled_from(["1.5", "2"]), st.integers(1, 5000), st.data())
def test_sizes_never_increase_and_end_at_the_budget(version, count, data):
    k = data.draw(st.integers(1, count))
    sizes = SparseVLM(version=version).sizes(k, count)
    assert sizes[-1] == k and count >= sizes[0] >= sizes[1] >= sizes[2]
    assert k < count or sizes == [count] * 3


# Inside a model


@dataclass
class First(SparseVLM):
    """Only the first of the three cuts drops anything."""

    def sizes(self, k, count):
        return [k] * 3


def states_behind(model, layer, inputs):
    """What enters a layer behind the hooks that are on it."""
    caught = []
    hook = model.get_decoder().layers[layer].register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    model(**inputs)
    hook.remove()
    return caught[0]


def slow_raters(embeds_PD, token_map, cameras):
    visual = torch.cat([token_map.positions(camera) for camera in cameras])
    last = int((token_map.view_P >= 0).nonzero().max())
    text = list(range(last + 1, token_map.length))
    share = torch.zeros(len(text), dtype=torch.float64)
    for token in embeds_PD[visual].double():
        share += torch.stack([token @ embeds_PD[at].double() for at in text]).softmax(dim=0) / len(visual)
    return [at for at, mine in zip(text, share, strict=True) if mine > share.mean()] or text


@pytest.mark.parametrize("scope", ["global", "per_camera"])
@pytest.mark.parametrize("version", ["1.5", "2"])
@pytest.mark.parametrize("name", ["llama", "qwen3_vl", "llava_onevision_llama"])
def test_the_first_cut_equals_the_formulas(make_family, name, version, scope):
    """On a ragged batch, from eager attention maps of every prompt by itself, un-pruned."""
    family = make_family(name, "eager")
    layer, heads, budget = 2, 3, 6
    method = First(layers=[layer, 3, 4], version=version, heads=heads, scope=scope)
    method.layers = (layer, 3)  # the tiny decoder has four layers
    inputs, naming = family.inputs(TEXTS, counts=COUNTS), family.naming(TEXTS, COUNTS)
    with prune(family.model, method, budget / TOKENS, **naming) as trace:
        states = states_behind(family.model, layer, inputs)
    for row, token_map in enumerate(trace.token_maps):
        alone = family.inputs(TEXTS[row : row + 1], [row], COUNTS[row : row + 1])
        out = family.model(**alone, output_attentions=True, output_hidden_states=True)
        rotary = rotary_of(family.model, alone, layer - 1)
        attention, hidden = out.attentions[layer - 1][0], states_behind(family.model, layer, alone)[0]
        pools = [token_map.cameras] if scope == "global" else [(camera,) for camera in token_map.cameras]
        expected, slots_of = hidden.clone(), {}
        for cameras in pools:
            at = torch.cat([token_map.positions(camera) for camera in cameras])
            who = slow_raters(out.hidden_states[0][0], token_map, cameras)
            rows = attention[:, who][..., at]
            if version == "2":
                bias = slow_bias(rotary)[who][:, at]
                rows = rows / bias
                best = sorted(range(len(rows)), key=lambda h: -float(rows[h].sum()))[:heads]
                rows = rows[best]
            ranked = rows.mean(dim=(0, 1)).argsort(descending=True)
            k = budget * len(cameras)
            if version == "2":
                slots_of[cameras] = at[ranked[:k].sort().values]
                continue
            sample = pool_generator(family, row, alone, cameras)
            slots, merged = recycle(hidden[at], ranked, torch.rand(len(at), generator=sample), k)
            slots_of[cameras] = at[slots]
            expected[at[slots]] = merged
        text = (token_map.view_P < 0).nonzero().flatten()
        kept = torch.cat([text, *slots_of.values()]).sort().values
        assert torch.equal(trace.positions[row], kept)
        assert (states[row, -len(kept) :] - expected[kept]).abs().max() < 1e-5


def pool_generator(family, row, alone, cameras):
    """The draw of a prompt that is known by its text."""
    name = PromptInfo().row_ids(1, alone["input_ids"], None)[0]
    nothing = torch.empty(0)
    return Pool(name, cameras, row, nothing, None, nothing).generator(0)


def rotary_of(model, inputs, layer):
    caught = {}
    hook = (
        model.get_decoder()
        .layers[layer]
        .register_forward_pre_hook(lambda _, args, kwargs: caught.update(kwargs), with_kwargs=True)
    )
    model(**inputs)
    hook.remove()
    return caught["position_embeddings"]


def slow_bias(rotary):
    cos, sin = rotary
    ones = torch.ones(1, 1, *cos.shape[1:])
    turned, _ = apply_rotary_pos_emb(ones, ones, cos, sin)
    width = cos.shape[-1]
    bias = (turned @ turned.transpose(2, 3))[0, 0] / width**0.5
    return bias.clamp(min=0.01 * width**0.5)


def test_version_2_without_bias_and_with_all_heads_scores_like_1_5(make_family, monkeypatch):
    family = make_family("llava")
    inputs = family.inputs(TEXTS[:2])
    scores = {}
    for version in VERSIONS:
        spied = []
        monkeypatch.setattr(sparsevlm, "rotary_bias", lambda *_: 1.0)
        method = First(layers=[1, 2, 3], version=version, heads=4)
        original = method.scores
        method.scores = lambda ctx, original=original, spied=spied: spied.append(original(ctx)) or spied[-1]
        with prune(family.model, method, 0.3, cameras=CAMERAS):
            family.model(**inputs)
        scores[version] = torch.cat(spied)
    torch.testing.assert_close(scores["1.5"], scores["2"])


def spied_raters(monkeypatch):
    """Every pool's raters, counted from the prompt's end, cut by cut."""
    found, original = {}, sparsevlm.raters

    def spy(ctx):
        at = original(ctx)
        for pool, at_R in zip(ctx.pools, at, strict=True):
            found.setdefault((pool.sample_id, pool.cameras), []).append((ctx.question_BP.shape[1] - at_R).tolist())
        return at

    monkeypatch.setattr(sparsevlm, "raters", spy)
    return found


def test_raters_are_the_same_at_every_cut(make_family, monkeypatch):
    """They come from all the pool's tokens as they entered the LLM, whatever is left of these."""
    family = make_family("qwen2_5_vl")
    found, naming = spied_raters(monkeypatch), family.naming(TEXTS, COUNTS)
    with prune(family.model, SparseVLM(layers=[1, 2, 3], scope="global"), 0.12, **naming) as trace:
        family.model(**family.inputs(TEXTS, counts=COUNTS))
    assert len(found) == len(TEXTS)
    for each in found.values():
        assert len(each) == 3 and each[0] and each[0] == each[1] == each[2]
    assert all(len({kept for _, kept in stages}) == 3 for stages in trace.stages)
    assert any(len(each[0]) < len(text) for each, text in zip(found.values(), TEXTS, strict=True))


def test_the_scale_of_the_embeddings_changes_the_raters(make_family, monkeypatch):
    """The softmax over unscaled products is soft for small embeddings, and all or nothing for large ones."""
    model, token_map = make_family("llama").model, families.text_map(list(range(20)))
    found = spied_raters(monkeypatch)
    embeds = torch.randn(1, token_map.length, 32, generator=torch.Generator().manual_seed(0))
    for scale in (0.1, 1.0, 10.0):
        method = First(layers=[1, 2, 3], scope="global")
        with prune(model, method, 0.3, token_map=token_map, sample_ids=[str(scale)]):
            model(inputs_embeds=scale * embeds)
    soft, usual, hard = (each[0] for each in found.values())
    assert soft != usual and usual != hard and len(soft) > len(hard) > 0


def test_positions_and_merging_follow_the_version():
    assert (SparseVLM().traits.merges_tokens, SparseVLM().traits.positions) == (True, "renumber")
    assert (SparseVLM(version=2).traits.merges_tokens, SparseVLM(version=2).traits.positions) == (False, "keep")
    assert SparseVLM(version=2).resolve(32).traits.merges_tokens is False
    assert SparseVLM(version=1.5).version == "1.5"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"version": "1.0"}, "pruner.version=1.0: choose from 1.5, 2"),
        ({"layers": [1, 2]}, "three"),
        ({"layers": [0, 1, 2]}, "1 or higher"),
        ({"heads": 0}, "heads=0"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        SparseVLM(**options)


def test_a_prompt_that_ends_with_an_image_is_refused(make_family):
    model = make_family("llama").model
    token_map = families.text_map([])
    at = torch.cat([token_map.positions(camera) for camera in CAMERAS])
    ids = torch.zeros(1, token_map.length - 1, dtype=torch.long)
    cut = type(token_map).from_spans(
        {c: (int(token_map.positions(c)[0]), int(token_map.positions(c)[-1]) + 1) for c in CAMERAS}, int(at.max()) + 1
    )
    with prune(model, SparseVLM(layers=[1, 2, 3]), 0.3, token_map=cut), pytest.raises(InputError, match="ends with an"):
        model(input_ids=ids[:, : cut.length])


def test_versions_keep_other_tokens(make_family):
    family = make_family("llama")
    kept = []
    for version in VERSIONS:
        with prune(family.model, SparseVLM(layers=[1, 2, 3], version=version), 0.3, **family.naming(TEXTS)) as trace:
            family.model(**family.inputs(TEXTS))
        kept.append(torch.cat(trace.positions))
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(kept, 2))
