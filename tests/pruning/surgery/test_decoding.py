"""Pruned prompts in all the ways of decoding and calling a model."""

import pytest
import torch
from helpers import families
from helpers.asking import COUNTS, STEPS, TEXTS, answer, assert_close, batch, generate, one
from helpers.families import TOKENS
from transformers import DynamicCache

from prune2drive.pruning import TFPS, FastV, prune

pytestmark = pytest.mark.slow  # every family, option by option


def families_and(*settings):
    """The first setting on every family, the others on decoders of other kinds alone."""
    for name in families.FAMILIES:
        yield from ((name, *each) for each in (settings if name in families.KINDS else settings[:1]))


@pytest.mark.parametrize(("name", "positions"), families_and(("renumber",), ("keep",)))
def test_beams_follow_the_pruned_prompt(make_family, name, positions):
    """Each beam search result scores what the same sequence scores when it is forced greedily."""
    family = make_family(name)
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
            _, logits = answer(family.model, alone, logits_processor=[_Force(alone["input_ids"].shape[1], forced)])
        score = logits[0].log_softmax(-1)[range(STEPS), forced].sum() / STEPS
        torch.testing.assert_close(single.sequences_scores[0], score, atol=1e-5, rtol=1e-5)


class _Force:
    """Makes decoding say given tokens."""

    def __init__(self, prompt, tokens):
        self.prompt, self.tokens = prompt, tokens

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.tokens[input_ids.shape[1] - self.prompt]] = 0
        return forced


@pytest.mark.parametrize(("name", "layer", "positions"), families_and((1, "renumber"), (0, "keep"), (1, "keep")))
def test_prompt_lookup_equals_greedy(make_family, name, layer, positions):
    """Candidates are accepted, rejected and, behind the 8 that starts an image, image tokens."""
    family = make_family(name)
    inputs, naming = one(family)
    inputs["input_ids"][0, -1] = 95  # new in the prompt, so that the prefill has no candidates behind it
    said = [8, 70, 71, 72, 70, 71, 72, 70, 71, 74, 70, 71, 72, 75]
    options = {"logits_processor": [_Force(inputs["input_ids"].shape[1], said)], "steps": len(said)}
    calls = []
    with prune(family.model, TFPS(layer=layer), 0.3, positions=positions, **naming):
        _, expected = answer(family.model, inputs, **options)
        hook = family.model.get_decoder().register_forward_pre_hook(lambda *_: calls.append(1))
        tokens, logits = answer(family.model, inputs, prompt_lookup_num_tokens=3, **options)
        hook.remove()
    assert_close(logits, expected)
    assert tokens[0].tolist() == said
    assert len(calls) < len(said)


@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_decoding_by_hand_equals_generate(family, positions):
    alone, naming = one(family)
    with prune(family.model, TFPS(layer=1), 0.12, positions=positions, **naming):
        tokens, expected = answer(family.model, alone)
        cache, step = DynamicCache(), alone
        for index in range(STEPS):
            assert_close(family.model(**step, past_key_values=cache).logits[0, -1], expected[0, index])
            step = {"input_ids": tokens[:, [index]]}


def test_several_prompts_in_one_context_do_not_disturb_each_other(sdpa_family):
    inputs, naming = batch(sdpa_family)
    alone, alone_naming = one(sdpa_family)
    with prune(sdpa_family.model, TFPS(layer=1), 0.3, **naming):
        first = answer(sdpa_family.model, inputs)
        again = answer(sdpa_family.model, inputs)
        samples = generate(sdpa_family.model, inputs, do_sample=True, num_return_sequences=2).sequences
    assert len(samples) == 2 * len(TEXTS)
    assert torch.equal(first[1], again[1])
    with prune(sdpa_family.model, TFPS(layer=1), 0.3, **alone_naming):
        expected = answer(sdpa_family.model, alone)
    if "cameras" in naming:
        with prune(sdpa_family.model, TFPS(layer=1), 0.3) as trace:
            answer(sdpa_family.model, inputs)
            assert torch.equal(answer(sdpa_family.model, alone)[1], expected[1])
            assert list(trace.kept[0]) == [f"image_{index}" for index in range(COUNTS[0])]


@pytest.mark.parametrize(("dtype", "positions"), [(torch.bfloat16, "keep"), (torch.float16, "renumber")], ids=str)
@pytest.mark.parametrize("name", families.FAMILIES)
def test_half_precision_weights(name, dtype, positions):
    family = families.make(name)
    family.model.to(dtype)
    inputs, naming = batch(family)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    for pruner in (TFPS(layer=0), FastV(layer=1)):
        with prune(family.model, pruner, 0.3, positions=positions, **naming) as trace:
            _, logits = answer(family.model, inputs)
        assert logits.isfinite().all() and trace.kept_tokens == [5 * count for count in COUNTS]


def test_the_inner_model_prunes_too(make_family):
    family = make_family("llava_onevision")
    alone, naming = one(family)
    other = family.inputs([[41, 42]], [5])
    with prune(family.model, TFPS(layer=1), 0.3, **naming) as trace:
        family.model(**other)
        inner = family.model.model(**alone).last_hidden_state
        assert trace.token_maps[0].length == alone["input_ids"].shape[1]
        assert torch.equal(family.model(**alone, output_hidden_states=True).hidden_states[-1], inner)
    with prune(family.model.model, TFPS(layer=1), 0.3, **naming):
        assert torch.equal(family.model.model(**alone).last_hidden_state, inner)


def test_hidden_states_shrink_at_the_cut(sdpa_family):
    alone, naming = one(sdpa_family)
    length = alone["input_ids"].shape[1]
    with prune(sdpa_family.model, TFPS(layer=2), 0.3, **naming):
        out = sdpa_family.model(**alone, output_hidden_states=True)
    dropped = COUNTS[0] * (TOKENS - 5)
    assert [states.shape[1] for states in out.hidden_states] == [length] * 3 + [length - dropped] * 2
    cached = [out.past_key_values.get_seq_length(index) for index in range(4)]
    assert cached == [length] * 2 + [length - dropped] * 2


def test_pruned_layers_get_no_position_ids(sdpa_family):
    """Flash kernels would read their gaps as packed sequences."""
    inputs, naming = batch(sdpa_family)
    seen = []
    with prune(sdpa_family.model, TFPS(layer=1), 0.3, **naming):
        layer = sdpa_family.model.get_decoder().layers[2]
        hook = layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
        answer(sdpa_family.model, inputs)
        hook.remove()
    assert len(seen) == STEPS and all(kwargs["position_ids"] is None for kwargs in seen)
