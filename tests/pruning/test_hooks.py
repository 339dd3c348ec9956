import json
import weakref

import families
import pytest
import torch
from families import CAMERAS, IMAGE, TOKENS
from reference import greedy
from safetensors.torch import load_file
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, FastV, NoPruner, RandomPruner, UniformPruner, prune
from prune2drive.sample import TokenMap

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25], [31]]
COUNTS = [3, 2, 3]  # cameras in each prompt
STEPS = 5


def generate(model, inputs, steps=STEPS, **options):
    options = {"max_new_tokens": steps, "do_sample": False, **options}
    return model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)


def answer(model, inputs, steps=STEPS, **options):
    """New tokens [B, S] and their logits [B, S, V]."""
    out = generate(model, inputs, steps, **options)
    return out.sequences[:, -steps:], torch.stack(out.logits, dim=1)


def one(family, row=0, texts=TEXTS, counts=COUNTS):
    """One prompt of the batch by itself, and its naming."""
    return family.inputs(texts[row : row + 1], [row], counts[row : row + 1]), family.naming(
        texts[row : row + 1], counts[row : row + 1]
    )


def batch(family):
    return family.inputs(TEXTS, counts=COUNTS), family.naming(TEXTS, COUNTS)


# What is kept is computed right


@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("rows", [1, 3])
def test_keeping_everything_equals_the_unpruned_model_bit_for_bit(family, layer, rows):
    inputs, naming = family.inputs(TEXTS[:rows], counts=COUNTS[:rows]), family.naming(TEXTS[:rows], COUNTS[:rows])
    tokens, logits = answer(family.model, inputs)
    for pruner, keep in ((TFPS(layer=layer), 1.0), (NoPruner(layer=layer), 0.1)):
        with prune(family.model, pruner, keep, **naming) as trace:
            kept_tokens, kept_logits = answer(family.model, inputs)
            prefill = family.model(**inputs).logits
        assert torch.equal(kept_tokens, tokens) and torch.equal(kept_logits, logits)
        assert torch.equal(prefill, family.model(**inputs).logits)
        assert trace.kept_tokens == trace.full_tokens == [TOKENS * count for count in COUNTS[:rows]]


@pytest.mark.parametrize("positions", ["keep", "renumber"])
@pytest.mark.parametrize(
    "pruner",
    [
        TFPS(layer=0),
        TFPS(layer=1, scope="global"),
        TFPS(layer=3, mode="nearest"),
        FastV(layer=1),
        FastV(layer=3, scope="global"),
        RandomPruner(layer=0, scope="global"),
        UniformPruner(layer=1),
    ],
    ids=lambda pruner: f"{type(pruner).__name__}-{pruner.layer}-{pruner.scope}",
)
def test_a_ragged_batch_equals_every_prompt_computed_from_scratch(family, pruner, positions):
    inputs, naming = batch(family)
    with prune(family.model, pruner, 0.3, positions=positions, **naming) as trace:
        tokens, logits = answer(family.model, inputs)
    for row in range(len(TEXTS)):
        alone, _ = one(family, row)
        expected = greedy(family.model, alone, trace.positions[row], pruner.layer, positions, STEPS)
        assert torch.equal(tokens[row], expected[0])
        torch.testing.assert_close(logits[row], expected[1], atol=1e-5, rtol=1e-5)
    assert trace.kept_tokens == [5 * count for count in COUNTS]


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


def test_the_trace_agrees_with_itself(family):
    inputs, naming = batch(family)
    with prune(family.model, TFPS(layer=1), 0.3, **naming) as trace:
        family.model(**inputs)
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
        torch.testing.assert_close(logits[row], expected[1], atol=1e-5, rtol=1e-5)
        assert torch.equal(tokens[row], expected[0])


def test_another_kept_set_and_other_positions_change_the_logits(family):
    inputs, naming = one(family)
    logits = {}
    for mode in ("farthest", "nearest"):
        for positions in ("keep", "renumber"):
            with prune(family.model, TFPS(layer=1, mode=mode), 0.3, positions=positions, **naming):
                logits[mode, positions] = family.model(**inputs).logits[0, -1]
    values = list(logits.values())
    for index, value in enumerate(values):
        assert all((value - other).abs().max() > 1e-3 for other in values[:index])


# Ways of decoding


@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_beams_follow_the_pruned_prompt(family, positions):
    """Each beam search result scores what the same sequence scores when it is forced greedily."""
    inputs, naming = batch(family)
    with prune(family.model, TFPS(layer=1), 0.3, positions=positions, **naming) as trace:
        out = generate(family.model, inputs, num_beams=2, output_scores=True)
    assert [len(row) for row in (trace.kept, trace.positions)] == [2 * len(TEXTS)] * 2
    for row in range(len(TEXTS)):
        alone, naming = one(family, row)
        with prune(family.model, TFPS(layer=1), 0.3, positions=positions, **naming):
            single = generate(family.model, alone, num_beams=2, output_scores=True)
        assert torch.equal(single.sequences[0, -STEPS:], out.sequences[row, -STEPS:])
        torch.testing.assert_close(single.sequences_scores[0], out.sequences_scores[row], atol=1e-5, rtol=1e-5)
        forced = single.sequences[0, -STEPS:].tolist()
        with prune(family.model, TFPS(layer=1), 0.3, positions=positions, **naming):
            _, logits = answer(family.model, alone, logits_processor=[_Force(forced)])
        score = logits[0].log_softmax(-1)[range(STEPS), forced].sum() / STEPS
        torch.testing.assert_close(single.sequences_scores[0], score, atol=1e-5, rtol=1e-5)


class _Force:
    """Makes greedy decoding say given tokens."""

    def __init__(self, tokens):
        self.tokens = list(tokens)

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.tokens.pop(0)] = 0
        return forced


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_prompt_lookup_equals_greedy(family, layer, positions):
    text = list(range(60, 90))  # no bigram twice, so that the prefill holds no candidates of its own
    inputs, naming = family.inputs([text], counts=[2]), family.naming([text], [2])
    with prune(family.model, TFPS(layer=layer), 0.3, positions=positions, **naming):
        expected = family.model.generate(**inputs, max_new_tokens=30, do_sample=False)
        calls = []
        hook = family.model.get_decoder().register_forward_pre_hook(lambda *_: calls.append(1))
        options = {"prompt_lookup_num_tokens": 3, "max_matching_ngram_size": 1}
        tokens = family.model.generate(**inputs, max_new_tokens=30, do_sample=False, **options)
        hook.remove()
    assert torch.equal(tokens, expected)
    assert len(calls) < 30  # some candidates were accepted
