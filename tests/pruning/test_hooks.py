import json
import weakref

import families
import pytest
import torch
from families import CAMERAS, IMAGE, TOKENS
from reference import greedy
from safetensors.torch import load_file
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    StaticCache,
)

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


def assert_close(found, expected):
    """Within 1e-5 of the largest logit."""
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


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
    with prune(family.model, pruner, 0.12, positions=positions, **naming) as trace:
        tokens, logits = answer(family.model, inputs)
    for row in range(len(TEXTS)):
        alone, _ = one(family, row)
        expected = greedy(family.model, alone, trace.positions[row], pruner.layer, positions, STEPS)
        assert torch.equal(tokens[row], expected[0])
        assert_close(logits[row], expected[1])
    assert trace.kept_tokens == [2 * count for count in COUNTS]


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
        assert_close(logits[row], expected[1])
        assert torch.equal(tokens[row], expected[0])


def test_another_kept_set_and_other_positions_change_the_logits(family):
    inputs, naming = one(family)
    logits = {}
    for mode in ("farthest", "nearest"):
        for positions in ("keep", "renumber"):
            with prune(family.model, TFPS(layer=1, mode=mode), 0.12, positions=positions, **naming):
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


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_prompt_lookup_equals_greedy(family, layer, positions):
    """Candidates are accepted, rejected and, behind the 8 that starts an image, image tokens."""
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


def test_several_prompts_in_one_context_do_not_disturb_each_other(family):
    inputs, naming = batch(family)
    alone, alone_naming = one(family)
    with prune(family.model, TFPS(layer=1), 0.3, **naming):
        first = answer(family.model, inputs)
        again = answer(family.model, inputs)
        samples = generate(family.model, inputs, do_sample=True, num_return_sequences=2).sequences
    assert len(samples) == 2 * len(TEXTS)
    assert torch.equal(first[1], again[1])
    with prune(family.model, TFPS(layer=1), 0.3, **alone_naming):
        expected = answer(family.model, alone)
    if "cameras" in naming:
        with prune(family.model, TFPS(layer=1), 0.3) as trace:
            answer(family.model, inputs)
            assert torch.equal(answer(family.model, alone)[1], expected[1])
            assert list(trace.kept[0]) == [f"image_{index}" for index in range(COUNTS[0])]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("positions", ["keep", "renumber"])
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


def test_a_decoder_called_alone_does_not_take_the_last_prompt_for_its_own(make_family):
    model = make_family("llava").model
    inputs, naming = llava_prompt(make_family("llava"))
    with prune(model, TFPS(), 0.1, **naming):
        model(**inputs)
        with refuses("token_map="):
            model.get_decoder()(inputs_embeds=torch.randn(1, 60, 32))


def test_hidden_states_shrink_at_the_cut(family):
    alone, naming = one(family)
    length = alone["input_ids"].shape[1]
    with prune(family.model, TFPS(layer=2), 0.3, **naming):
        out = family.model(**alone, output_hidden_states=True)
    dropped = COUNTS[0] * (TOKENS - 5)
    assert [states.shape[1] for states in out.hidden_states] == [length] * 3 + [length - dropped] * 2
    cached = [out.past_key_values.get_seq_length(index) for index in range(4)]
    assert cached == [length] * 2 + [length - dropped] * 2


def test_pruned_layers_get_no_position_ids(family):
    """Flash kernels would read their gaps as packed sequences."""
    inputs, naming = batch(family)
    seen = []
    with prune(family.model, TFPS(layer=1), 0.3, **naming):
        layer = family.model.get_decoder().layers[2]
        hook = layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True)
        answer(family.model, inputs)
        hook.remove()
    assert len(seen) == STEPS and all(kwargs["position_ids"] is None for kwargs in seen)


# Nothing is left behind


def hooks(model):
    return [
        (name, kind, function)
        for name, module in model.named_modules()
        for kind in ("_forward_pre_hooks", "_forward_hooks")
        for function in getattr(module, kind).values()
    ]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_behind(family, fails):
    inputs, naming = batch(family)
    expected, before = answer(family.model, inputs), hooks(family.model)
    attributes = {name: set(vars(module)) for name, module in family.model.named_modules()}
    try:
        with prune(family.model, FastV(layer=1), 0.3, **naming) as trace:
            answer(family.model, inputs)
            assert hooks(family.model) != before
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert hooks(family.model) == before
    assert {name: set(vars(module)) for name, module in family.model.named_modules()} == attributes
    again = answer(family.model, inputs)
    assert torch.equal(expected[0], again[0]) and torch.equal(expected[1], again[1])
    with prune(family.model, FastV(layer=1), 0.3, **naming) as second:
        answer(family.model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(trace.positions, second.positions, strict=True))


def test_the_model_is_not_kept_alive():
    family = families.make("llama")
    alone, naming = one(family)
    with prune(family.model, FastV(layer=1), 0.3, **naming) as trace:
        family.model(**alone)
    gone = weakref.ref(family.model)
    del family
    assert gone() is None and trace.kept


# What cannot be right is refused


class refuses(pytest.RaisesExc):
    """Expects an InputError of one line that contains each of these."""

    def __init__(self, *parts):
        def check(error):
            assert isinstance(error, ValueError) and "\n" not in str(error)
            assert all(part in str(error) for part in parts), str(error)
            return True

        super().__init__(InputError, check=check)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"keep": 0}, ["(0, 1]"]),
        ({"keep": 1.1}, ["1.1", "(0, 1]"]),
        ({"keep": float("nan")}, ["(0, 1]"]),
        ({"keep": "0.1"}, ["(0, 1]"]),
        ({"keep": {**dict.fromkeys(CAMERAS, 0.1), "CAM_FRNT": 0.1}}, ["CAM_FRNT", "CAM_FRONT"]),
        ({"keep": dict.fromkeys(CAMERAS[1:], 0.1)}, ["no keep ratio", "CAM_FRONT"]),
        ({"keep": dict.fromkeys(CAMERAS, 2.0)}, ["CAM_FRONT", "(0, 1]"]),
        ({"pruner": TFPS(layer=4)}, ["layer=4", "0 to 3"]),
        ({"positions": "original"}, ["positions='original'", "'keep'", "'renumber'"]),
        ({"rounding": "ceil"}, ["rounding='ceil'", "'nearest'", "'seed'"]),
    ],
)
def test_options_are_refused_at_once(make_family, options, parts):
    options = {"pruner": TFPS(), "keep": 0.1, "cameras": CAMERAS, **options}
    with refuses(*parts), prune(make_family("llava").model, **options):
        pass


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: FastV(layer=0), ["FastV", "layer=0", "1 or higher"]),
        (lambda: TFPS(layer=-1), ["layer=-1"]),
        (lambda: TFPS(layer="1"), ["layer=1"]),
        (lambda: TFPS(scope="camera"), ["scope='camera'", "per_camera", "global"]),
        (lambda: UniformPruner(scope="global"), ["scope='global'", "per_camera"]),
        (lambda: TFPS(dtype="half precision"), ["dtype='half precision'", "float32"]),
        (lambda: TFPS(dtype="int64"), ["dtype='int64'", "float32"]),
        (lambda: TFPS(metric="euclid"), ["metric='euclid'", "cosine"]),
        (lambda: TFPS(mode="near"), ["mode='near'", "nearest"]),
        (lambda: TFPS(start="first"), ["start='first'", "isolated"]),
    ],
)
def test_methods_refuse_bad_options(make, parts):
    with refuses(*parts):
        make()


def llava_prompt(family):
    return family.inputs(TEXTS[:1]), {"cameras": CAMERAS}


@pytest.mark.parametrize(
    ("change", "naming", "parts"),
    [
        ({"labels": torch.ones(1, 1).long()}, {}, ["labels"]),
        ({"input_ids": torch.tensor([[11, 12]]), "pixel_values": None}, {}, ["no visual tokens", "nothing to prune"]),
        ({"input_ids": None, "inputs_embeds": torch.randn(1, 60, 32), "pixel_values": None}, {}, ["token_map="]),
        ({"attention_mask": torch.ones(1, 1, 60, 60)}, {}, ["attention_mask", "[batch, length]"]),
        ({"logits_to_keep": torch.tensor([59])}, {}, ["logits_to_keep", "a number"]),
        ({}, {"cameras": CAMERAS[:2]}, ["3 images", "2 cameras"]),
        ({}, {"cameras": [CAMERAS, CAMERAS]}, ["cameras has 2 entries", "batch of 1"]),
        ({}, {"cameras": None, "keep": dict.fromkeys(CAMERAS, 0.1)}, ["CAM_FRONT", "image_0"]),
        ({}, {"token_map": families.text_map([1])}, ["60 positions", "token_map for 56"]),
        ({}, {"keep": 0.01, "rounding": "seed"}, ["0 tokens", "rounding=nearest"]),
        ({}, {"pruner": TFPS(start=16)}, ["start=16", "16 tokens"]),
        ({}, {"pruner": TFPS(start=-1)}, ["start=-1"]),
        ({"past_key_values": "static"}, {}, ["static", "dynamic"]),
        ({"past_key_values": "filled"}, {}, ["filled outside"]),
    ],
)
def test_prompts_are_refused(make_family, change, naming, parts):
    family = make_family("llava")
    inputs, given = llava_prompt(family)
    change = dict(change)
    if change.get("past_key_values") == "static":
        change["past_key_values"] = StaticCache(family.model.config.get_text_config(), max_cache_len=80)
    if change.get("past_key_values") == "filled":
        change["past_key_values"] = family.model(**inputs).past_key_values
    options = {"pruner": TFPS(), "keep": 0.1, **given, **naming}
    with prune(family.model, **options), refuses(*parts):
        family.model(**{**inputs, **change})


def test_right_padding_is_refused(family):
    inputs, naming = batch(family)
    side_by_side = [row[mask.bool()] for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    inputs["input_ids"] = torch.nn.utils.rnn.pad_sequence(side_by_side, batch_first=True)
    inputs["attention_mask"] = (inputs["input_ids"] > 0).long()
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    with prune(family.model, TFPS(), 0.1, **naming), refuses("left"):
        family.model(**inputs)


@pytest.mark.parametrize("size", [7, 30, 59])
def test_chunked_prefill_of_a_bare_decoder_is_refused(make_family, attention, size):
    family = make_family("llama", attention)
    alone, naming = one(family)
    with prune(family.model, TFPS(), 0.1, **naming), refuses("chunked prefill"):
        family.model.generate(**alone, max_new_tokens=2, prefill_chunk_size=size)


@pytest.mark.parametrize("name", ["llava", "internvl", "llava_onevision", "qwen3_vl"])
@pytest.mark.parametrize("chunk", [6, 25, 41])
def test_chunked_prefill_of_a_vision_model_is_refused(make_family, name, chunk):
    """The first chunk holds no image, a part of one, or whole ones with more to come."""
    family = make_family(name)
    alone, _ = one(family)
    cut = {6: 2, 25: 20, 41: len(TEXTS[0]) + 2 * (family.run + 2)}[chunk]
    with prune(family.model, TFPS(), 0.1), pytest.raises(InputError):
        family.model.generate(**alone, max_new_tokens=2, prefill_chunk_size=cut)


def test_a_second_chunk_by_hand_is_refused(make_family):
    family = make_family("llava")
    inputs, _ = llava_prompt(family)
    cut = len(TEXTS[0]) + 2 * (TOKENS + 2)
    first, second = (inputs["input_ids"][:, :cut], inputs["input_ids"][:, cut:])
    with prune(family.model, TFPS(), 0.1):
        cache = family.model(input_ids=first, pixel_values=inputs["pixel_values"][:2]).past_key_values
        with refuses("images in a later chunk"):
            family.model(input_ids=second, pixel_values=inputs["pixel_values"][2:], past_key_values=cache)


def test_decoding_by_hand_without_positions_is_refused_where_the_cache_no_longer_tells_them(family):
    alone, naming = one(family)
    with prune(family.model, TFPS(layer=0), 0.1, **naming):
        cache = family.model(**alone, use_cache=True).past_key_values
        with refuses("layer=0", "position_ids"):
            family.model(input_ids=torch.tensor([[11]]), past_key_values=cache)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_second_question_about_the_cached_images(family, layer):
    """`generate` counts on the cache of layer 0 for what it has to feed."""
    alone, naming = one(family)
    more = torch.tensor([[41, 42, 43]])
    with prune(family.model, TFPS(layer=layer), 0.1, **naming) as trace:
        first = generate(family.model, alone)
        ids = torch.cat([first.sequences, more], dim=1)
        second = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "past_key_values": first.past_key_values}
        if layer == 0:
            with refuses("layer=1 or higher"):
                generate(family.model, second)
            return
        tokens, logits = answer(family.model, second)
    steps = first.sequences[0, -STEPS:].tolist() + more[0].tolist() + tokens[0].tolist()
    expected = greedy(family.model, alone, trace.positions[0], layer, "keep", len(steps), said=steps)
    assert_close(logits[0], expected[1][-STEPS:])


def test_generating_without_a_cache_is_refused(family):
    alone, naming = one(family)
    with prune(family.model, FastV(layer=1), 0.1, **naming), refuses("use_cache=True"):
        family.model.generate(**alone, max_new_tokens=3, use_cache=False)


def test_fastv_refuses_candidates_behind_the_prompt(make_family):
    family = make_family("internvl")
    alone, naming = one(family)
    alone["input_ids"][0, -1] = alone["input_ids"][0, 1]
    with prune(family.model, FastV(layer=1), 0.1, **naming), refuses("FastV", "last position"):
        family.model(**alone, logits_to_keep=3)


def test_a_static_cache_is_refused(family):
    alone, naming = one(family)
    with prune(family.model, TFPS(), 0.1, **naming), refuses("static"):
        family.model.generate(**alone, max_new_tokens=2, cache_implementation="static")


def test_nested_contexts_are_refused(make_family):
    model = make_family("llava").model
    with prune(model, TFPS(), 0.1):
        with refuses("already"), prune(model, FastV(), 0.1):
            pass
        with refuses("already"), prune(model.model, FastV(), 0.1):
            pass
    with prune(model, TFPS(), 0.1):
        pass


def test_a_model_of_unknown_layout_is_refused(make_family):
    family = make_family("llama")
    alone, naming = one(family)
    with prune(family.model, TFPS(), 0.1), refuses("'llama'", "token_map="):
        family.model(**alone)
    embeds = family.model.get_input_embeddings()(alone["input_ids"])
    with prune(family.model, TFPS(), 0.1, **naming) as trace:
        family.model(inputs_embeds=embeds)
    assert trace.kept_tokens == [6]


@pytest.mark.parametrize(
    "model",
    [
        lambda: MistralForCausalLM(MistralConfig(**families.TEXT, **families.IDS, sliding_window=8)),
        lambda: Qwen2ForCausalLM(
            Qwen2Config(**families.TEXT, **families.IDS, use_sliding_window=True, max_window_layers=1)
        ),
    ],
    ids=["mistral", "qwen2"],
)
def test_sliding_windows_are_refused(model):
    with refuses("sliding"), prune(model(), TFPS(), 0.1):
        pass


# The original implementation


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
def test_golden_llama(golden, tag, attention):
    """Kept positions, picks in order, tokens and logits of the original, whose budgets truncate."""
    recorded = json.loads((golden / "llama_tiny/golden.json").read_text())
    run = next(run for run in recorded["runs"] if run["tag"] == tag)
    layout = recorded["layout"]
    model = LlamaForCausalLM(LlamaConfig.from_json_file(golden / "llama_tiny/config.json")).eval()
    model.load_state_dict(load_file(golden / "llama_tiny/model.safetensors"))
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
