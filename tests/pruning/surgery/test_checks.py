"""What cannot be right is refused, in one line."""

import pytest
import torch
from helpers import families
from helpers.asking import STEPS, TEXTS, answer, assert_close, batch, generate, one
from helpers.families import CAMERAS, IMAGE, TOKENS
from helpers.reference import greedy
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, StaticCache

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, FastV, UniformPruner, prune


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
        ({"positions": "original"}, ["positions=original", "keep", "renumber"]),
        ({"rounding": "ceil"}, ["rounding=ceil", "nearest", "seed"]),
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
        (lambda: TFPS(scope="camera"), ["pruner.scope=camera", "per_camera", "global"]),
        (lambda: UniformPruner(scope="global"), ["pruner.scope=global", "per_camera"]),
        (lambda: TFPS(dtype="half precision"), ["dtype='half precision'", "float32"]),
        (lambda: TFPS(dtype="int64"), ["dtype='int64'", "float32"]),
        (lambda: TFPS(metric="euclid"), ["pruner.metric=euclid", "cosine"]),
        (lambda: TFPS(mode="near"), ["pruner.mode=near", "nearest"]),
        (lambda: TFPS(start="first"), ["pruner.start=first", "isolated"]),
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


def test_right_padding_is_refused(sdpa_family):
    inputs, naming = batch(sdpa_family)
    side_by_side = [row[mask.bool()] for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    inputs["input_ids"] = torch.nn.utils.rnn.pad_sequence(side_by_side, batch_first=True)
    inputs["attention_mask"] = (inputs["input_ids"] > 0).long()
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int()
    with prune(sdpa_family.model, TFPS(), 0.1, **naming), refuses("left"):
        sdpa_family.model(**inputs)


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


def test_a_decoder_called_alone_does_not_take_the_last_prompt_for_its_own(make_family):
    model = make_family("llava").model
    inputs, naming = llava_prompt(make_family("llava"))
    with prune(model, TFPS(), 0.1, **naming):
        model(**inputs)
        with refuses("token_map="):
            model.get_decoder()(inputs_embeds=torch.randn(1, 60, 32))


def test_a_second_chunk_by_hand_is_refused(make_family):
    family = make_family("llava")
    inputs, _ = llava_prompt(family)
    cut = len(TEXTS[0]) + 2 * (TOKENS + 2)
    first, second = (inputs["input_ids"][:, :cut], inputs["input_ids"][:, cut:])
    with prune(family.model, TFPS(), 0.1):
        cache = family.model(input_ids=first, pixel_values=inputs["pixel_values"][:2]).past_key_values
        with refuses("images in a later chunk"):
            family.model(input_ids=second, pixel_values=inputs["pixel_values"][2:], past_key_values=cache)


def test_decoding_by_hand_without_positions_is_refused_where_the_cache_no_longer_tells_them(sdpa_family):
    alone, naming = one(sdpa_family)
    with prune(sdpa_family.model, TFPS(layer=0), 0.1, **naming):
        cache = sdpa_family.model(**alone, use_cache=True).past_key_values
        with refuses("layer=0", "position_ids"):
            sdpa_family.model(input_ids=torch.tensor([[11]]), past_key_values=cache)


@pytest.mark.parametrize("layer", [0, 1])
def test_a_second_question_about_the_cached_images(sdpa_family, layer):
    """`generate` counts on the cache of layer 0 for what it has to feed."""
    alone, naming = one(sdpa_family)
    more = torch.tensor([[41, 42, 43]])
    with prune(sdpa_family.model, TFPS(layer=layer), 0.1, **naming) as trace:
        first = generate(sdpa_family.model, alone)
        ids = torch.cat([first.sequences, more], dim=1)
        second = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "past_key_values": first.past_key_values}
        if layer == 0:
            with refuses("layer=1 or higher"):
                generate(sdpa_family.model, second)
            return
        tokens, logits = answer(sdpa_family.model, second)
    steps = first.sequences[0, -STEPS:].tolist() + more[0].tolist() + tokens[0].tolist()
    expected = greedy(sdpa_family.model, alone, trace.positions[0], layer, "keep", len(steps), said=steps)
    assert_close(logits[0], expected[1][-STEPS:])


def test_generating_without_a_cache_is_refused(sdpa_family):
    alone, naming = one(sdpa_family)
    with prune(sdpa_family.model, FastV(layer=1), 0.1, **naming), refuses("use_cache=True"):
        sdpa_family.model.generate(**alone, max_new_tokens=3, use_cache=False)


def test_fastv_refuses_candidates_behind_the_prompt(make_family):
    family = make_family("internvl")
    alone, naming = one(family)
    alone["input_ids"][0, -1] = alone["input_ids"][0, 1]
    with prune(family.model, FastV(layer=1), 0.1, **naming), refuses("FastV", "last position"):
        family.model(**alone, logits_to_keep=3)


def test_a_static_cache_is_refused(sdpa_family):
    alone, naming = one(sdpa_family)
    with prune(sdpa_family.model, TFPS(), 0.1, **naming), refuses("static"):
        sdpa_family.model.generate(**alone, max_new_tokens=2, cache_implementation="static")


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
