"""What is kept is computed right, as in the original implementation, and nothing is left behind."""

import itertools
import json
import weakref

import pytest
import torch
from helpers import GOLDEN, families
from helpers.asking import COUNTS, STEPS, TEXTS, answer, assert_close, batch, one
from helpers.families import IMAGE, TOKENS
from helpers.reference import greedy
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
)

from prune2drive.pruning import TFPS, FastV, NoPruner, RandomPruner, UniformPruner, prune
from prune2drive.token_map import TokenMap


def whole_cases():
    """Every family in both attentions, with padding before the cut and without any."""
    for name, attention in itertools.product(families.FAMILIES, ("sdpa", "eager")):
        yield from (
            (name, attention, layer, rows) for layer, rows in ((0, 3), (3, 1) if attention == "sdpa" else (1, 3))
        )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "attention", "layer", "rows"), whole_cases())
def test_keeping_everything_equals_the_unpruned_model_bit_for_bit(make_family, name, attention, layer, rows):
    family = make_family(name, attention)
    inputs, naming = family.inputs(TEXTS[:rows], counts=COUNTS[:rows]), family.naming(TEXTS[:rows], COUNTS[:rows])
    tokens, logits = answer(family.model, inputs)
    for pruner, keep in ((TFPS(layer=layer), 1.0), (NoPruner(layer=layer), 0.1)):
        with prune(family.model, pruner, keep, **naming) as trace:
            kept_tokens, kept_logits = answer(family.model, inputs)
            prefill = family.model(**inputs).logits
        assert torch.equal(kept_tokens, tokens) and torch.equal(kept_logits, logits)
        assert torch.equal(prefill, family.model(**inputs).logits)
        assert trace.kept_tokens == trace.full_tokens == [TOKENS * count for count in COUNTS[:rows]]


PRUNERS = [
    TFPS(layer=0),
    TFPS(layer=1, scope="global"),
    TFPS(layer=3, mode="nearest"),
    FastV(layer=1),
    FastV(layer=3, scope="global"),
    RandomPruner(layer=0, scope="global"),
    UniformPruner(layer=1),
]


def ragged_cases():
    """Every kind of decoder with all methods, every token layout with one for each layer, both kinds of masks."""
    for name in families.FAMILIES:
        every = name in ("llama", *families.KINDS)
        for index, pruner in enumerate(PRUNERS):
            for positions in ("keep", "renumber"):
                odd = index % 2 if positions == "keep" else 1 - index % 2
                if every or (index in (0, 2, 3, 6) and odd):
                    yield name, "sdpa", pruner, positions
                if every and index in (0, 4):
                    yield name, "eager", pruner, positions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "attention", "pruner", "positions"),
    ragged_cases(),
    ids=lambda part: part if isinstance(part, str) else f"{type(part).__name__}-{part.layer}-{part.scope}",
)
def test_a_ragged_batch_equals_every_prompt_computed_from_scratch(make_family, name, attention, pruner, positions):
    family = make_family(name, attention)
    inputs, naming = batch(family)
    with prune(family.model, pruner, 0.12, positions=positions, **naming) as trace:
        tokens, logits = answer(family.model, inputs)
    for row in range(len(TEXTS)):
        alone, _ = one(family, row)
        expected = greedy(family.model, alone, trace.positions[row], pruner.layer, positions, STEPS)
        assert torch.equal(tokens[row], expected[0])
        assert_close(logits[row], expected[1])
    assert trace.kept_tokens == [2 * count for count in COUNTS]


@pytest.mark.slow
@pytest.mark.parametrize("pruner", [TFPS(layer=0), TFPS(layer=1), FastV(layer=2)], ids=["TFPS-0", "TFPS-1", "FastV-2"])
def test_a_padded_batch_equals_its_prompts_one_by_one(family, pruner):
    inputs, naming = batch(family)
    with prune(family.model, pruner, 0.3, **naming) as trace:
        tokens, _ = answer(family.model, inputs)
    for row in range(len(TEXTS)):
        alone, naming = one(family, row)
        with prune(family.model, pruner, 0.3, **naming) as trace_alone:
            tokens_alone, _ = answer(family.model, alone)
        assert torch.equal(tokens_alone[0], tokens[row])
        assert torch.equal(trace_alone.positions[0], trace.positions[row])
        for camera, picks in trace_alone.picked[0].items():
            assert torch.equal(picks, trace.picked[row][camera])


def test_the_trace_agrees_with_itself(sdpa_family):
    inputs, naming = batch(sdpa_family)
    with prune(sdpa_family.model, TFPS(layer=1), 0.3, **naming) as trace:
        sdpa_family.model(**inputs)
    for row, token_map in enumerate(trace.token_maps):
        at = {camera: token_map.positions(camera)[kept] for camera, kept in trace.kept[row].items()}
        text = (token_map.view_P < 0).nonzero().flatten()
        assert torch.equal(torch.cat([text, *at.values()]).sort().values, trace.positions[row])
        assert token_map.length == inputs["attention_mask"][row].sum()
        assert trace.full_tokens[row] == COUNTS[row] * TOKENS
        assert trace.stages[row] == [(1, trace.kept_tokens[row])]


@pytest.mark.parametrize("layer", [0, 1])
def test_a_row_that_keeps_everything_beside_one_that_does_not(make_family, attention, layer):
    """The cut is then as long as the padded prompt, which must not be taken for no cut."""
    model = make_family("qwen3_vl", attention).model
    sides = [2, 8]  # patches a side: 1 and 16 tokens an image, of which one is kept

    def prompt(rows):
        runs = [[8, *[IMAGE] * (sides[row] // 2) ** 2, 9] for row in rows]
        texts = [[11 + i for i in range(40)], [51, 52]]
        prompts = [texts[row] + run for row, run in zip(rows, runs, strict=True)]
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts])
        pixels = [
            torch.randn(sides[row] ** 2, 3 * 2 * 16 * 16, generator=torch.Generator().manual_seed(row)) for row in rows
        ]
        return {
            "input_ids": ids,
            "attention_mask": (ids > 0).long(),
            "pixel_values": torch.cat(pixels),
            "image_grid_thw": torch.tensor([[1, sides[row], sides[row]] for row in rows]),
            "mm_token_type_ids": (ids == IMAGE).int(),
        }

    with prune(model, TFPS(layer=layer), 0.05) as trace:
        tokens, logits = answer(model, prompt([0, 1]))
    assert trace.kept_tokens == [1, 1] and trace.full_tokens == [1, 16]
    for row in (0, 1):
        expected = greedy(model, prompt([row]), trace.positions[row], layer, "keep", STEPS)
        assert_close(logits[row], expected[1])
        assert torch.equal(tokens[row], expected[0])


def test_another_kept_set_and_other_positions_change_the_logits(sdpa_family):
    inputs, naming = one(sdpa_family)
    logits = {}
    for mode in ("farthest", "nearest"):
        for positions in ("keep", "renumber"):
            with prune(sdpa_family.model, TFPS(layer=1, mode=mode), 0.12, positions=positions, **naming):
                logits[mode, positions] = sdpa_family.model(**inputs).logits[0, -1]
    values = list(logits.values())
    for index, value in enumerate(values):
        assert all((value - other).abs().max() > 1e-3 for other in values[:index])


def hooks(model):
    return [
        (name, kind, function)
        for name, module in model.named_modules()
        for kind in ("_forward_pre_hooks", "_forward_hooks")
        for function in getattr(module, kind).values()
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(sdpa_family, fails):
    inputs, naming = batch(sdpa_family)
    expected, before = answer(sdpa_family.model, inputs), hooks(sdpa_family.model)
    attributes = {name: set(vars(module)) for name, module in sdpa_family.model.named_modules()}
    try:
        with prune(sdpa_family.model, FastV(layer=1), 0.3, **naming) as trace:
            answer(sdpa_family.model, inputs)
            assert hooks(sdpa_family.model) != before
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert hooks(sdpa_family.model) == before
    assert {name: set(vars(module)) for name, module in sdpa_family.model.named_modules()} == attributes
    again = answer(sdpa_family.model, inputs)
    assert torch.equal(expected[0], again[0]) and torch.equal(expected[1], again[1])
    with prune(sdpa_family.model, FastV(layer=1), 0.3, **naming) as second:
        answer(sdpa_family.model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(trace.positions, second.positions, strict=True))


def test_the_model_is_not_kept_alive():
    family = families.make("llama")
    alone, naming = one(family)
    with prune(family.model, FastV(layer=1), 0.3, **naming) as trace:
        family.model(**alone)
    gone = weakref.ref(family.model)
    del family
    assert gone() is None and trace.kept


# The original implementation


def golden_llama():
    """The Llama that the original implementation pruned, its weights drawn in the order of its parameters."""
    sizes = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    rope = {"rope_theta": 500000.0, "rope_type": "default"}
    config = LlamaConfig(**sizes, **heads, rms_norm_eps=1e-5, max_position_embeddings=8192, rope_parameters=rope)
    model = LlamaForCausalLM(config).eval()
    torch.manual_seed(1234)
    for name, weights in model.named_parameters():
        drawn = torch.randn(weights.shape)
        scale = 2.0 if name.endswith(("q_proj.weight", "k_proj.weight")) else 1.0
        weights.data = 1 + 0.1 * drawn if weights.ndim == 1 else drawn * (scale / weights.shape[1] ** 0.5)
    return model


@pytest.mark.parametrize(
    ("tag", "attention"),
    [
        ("paper_setting_k1_r0.095", "sdpa"),
        ("paper_setting_k1_r0.095", "eager"),
        ("k0_r0.095", "sdpa"),
        ("k0_r0.095", "eager"),
        ("keep_all_k1", "sdpa"),
    ],
)
def test_golden_llama(tag, attention):
    """Kept positions, picks in order, tokens and logits of the original, whose budgets truncate."""
    recorded = json.loads((GOLDEN / "llama_tiny.json").read_text())
    run = next(run for run in recorded["runs"] if run["tag"] == tag)
    layout = recorded["layout"]
    model = golden_llama()
    model.set_attn_implementation(attention)
    torch.manual_seed(42)
    embeds = torch.randn(1, layout["total"], 64)
    names = [f"view_{index}" for index in range(layout["n_views"])]
    starts = layout["image_start_index"]
    spans = {name: (start, start + layout["visual_tokens"]) for name, start in zip(names, starts, strict=True)}
    token_map = TokenMap.from_spans(spans, layout["total"])
    ratios = dict(zip(names, run["fastv_r"], strict=True))
    with prune(model, TFPS(layer=run["fastv_k"]), ratios, token_map=token_map, rounding="seed") as trace:
        tokens, logits = answer(model, {"inputs_embeds": embeds}, steps=12, use_cache=True)
    if tag != "keep_all_k1":
        assert trace.positions[0].tolist() == run["kept_positions"]
        assert [trace.picked[0][name].tolist() for name in names] == run["per_view_selected_in_order"]
    assert tokens[0].tolist() == run["greedy_tokens"]
    assert (logits[0, 0] - torch.tensor(run["logits_last_token"])).abs().max() < 1e-5
    assert (logits[0] - torch.tensor(run["greedy_step_logits"])).abs().max() < 1e-4  # sdpa drifts, un-pruned too
