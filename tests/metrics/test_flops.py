import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    AutoModelForImageTextToText,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
    SmolVLMConfig,
)

from prune2drive.errors import InputError
from prune2drive.families import known_decoders
from prune2drive.metrics.flops import (
    VisionFlops,
    decoder_flops,
    kv_cache_bytes,
    layer_flops,
    layer_lengths,
    lm_head_flops,
)

GATED = sorted(name for name, kind in known_decoders().items() if kind.has_gated_mlp)
TEXT = dict(
    vocab_size=64,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,  # 4 x 16 is not the hidden size
    pad_token_id=0,
    rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
)
DRIVEMM = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
)


def decoder_config(model_type, **changes):
    shape = {**TEXT, **changes}
    if model_type.startswith("qwen2"):  # a head is hidden_size / heads there
        shape["hidden_size"] = shape.pop("head_dim") * shape["num_attention_heads"]
    if model_type == "qwen2":
        shape["tie_word_embeddings"] = True
    return CONFIG_MAPPING[model_type](**shape)


def decoder(config):
    return AutoModel.from_config(config, attn_implementation="eager").eval()


@pytest.mark.parametrize("tokens", [1, 7, 33])
@pytest.mark.parametrize("model_type", GATED)
def test_every_layer_of_a_forward_costs_what_the_formula_says(model_type, tokens):
    config = decoder_config(model_type)
    model = decoder(config)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs_embeds=torch.randn(1, tokens, config.hidden_size))
    by_module = counter.get_flop_counts()
    name = type(model).__name__
    counted = [sum(by_module[f"{name}.layers.{index}"].values()) for index in range(config.num_hidden_layers)]
    assert counted == [layer_flops(config, tokens)] * config.num_hidden_layers


def test_the_formula_covers_attention_without_groups():
    config = decoder_config("llama", num_key_value_heads=4)
    assert layer_flops(config, 5) > layer_flops(decoder_config("llama"), 5)
    assert decoder_flops(config, [5, 5, 5]) == count_layers(decoder(config), [5, 5, 5])


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_layers_of_different_lengths_are_added_up(model_type):
    config = decoder_config(model_type)
    lengths = layer_lengths(3, 40, [(1, 21), (2, 6)])
    assert decoder_flops(config, lengths) == count_layers(decoder(config), lengths)


def count_layers(model, lengths):
    hidden = torch.randn(1, max(lengths), model.config.hidden_size)
    rotation = model.rotary_emb(hidden, torch.arange(max(lengths))[None])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for layer, tokens in zip(model.layers, lengths, strict=True):
            turn = tuple(part[:, :tokens] for part in rotation)
            layer(hidden[:, :tokens], position_embeddings=turn, attention_mask=None)
    return counter.get_total_flops()


def test_a_causal_kernel_does_half_of_the_attention():
    config = decoder_config("llama")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        decoder(config).layers[0].self_attn(
            torch.randn(1, 20, 48), (torch.ones(1, 20, 16), torch.zeros(1, 20, 16)), None
        )
    attention = counter.get_flop_counts()["Global"][torch.ops.aten.bmm]
    assert layer_flops(config, 20) - layer_flops(config, 20, causal=True) == attention / 2
    assert decoder_flops(config, [20] * 3, causal=True) == 3 * layer_flops(config, 20, causal=True)


def test_the_output_projection_is_counted_for_the_last_position():
    head = torch.nn.Linear(TEXT["hidden_size"], TEXT["vocab_size"], bias=False)
    with FlopCounterMode(display=False) as counter:
        head(torch.randn(1, 1, TEXT["hidden_size"]))
    assert lm_head_flops(decoder_config("llama")) == counter.get_total_flops()


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("model_type", GATED)
def test_the_cache_holds_as_many_bytes(model_type, window):
    config = decoder_config(model_type, sliding_window=window, use_sliding_window=True, max_window_layers=1)
    with torch.no_grad():
        cache = decoder(config)(inputs_embeds=torch.randn(1, 12, config.hidden_size), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kv_cache_bytes(config, [12] * 3, dtype_bytes=4) == held


def test_drivemm_matches_the_published_share():
    text = 120 + 6
    full, kept = 6 * 729 + text, 6 * 72 + text
    share = decoder_flops(DRIVEMM, layer_lengths(32, full, [(1, kept)])) / decoder_flops(DRIVEMM, [full] * 32)
    assert 100 * share == pytest.approx(13.4, abs=0.5)


def test_drivemm_prefill_by_hand():
    d, m, n = 4096, 14336, 4500
    grouped_query = d * d + 2 * d * 1024 + d * d
    assert layer_flops(DRIVEMM, n) == 2 * n * (grouped_query + 3 * d * m) + 4 * n * n * d


def test_lengths_follow_the_stages():
    assert layer_lengths(4, 9) == [9, 9, 9, 9]
    assert layer_lengths(4, 9, [(0, 5)]) == [5, 5, 5, 5]
    assert layer_lengths(5, 9, [(1, 7), (2, 7), (4, 1)]) == [9, 7, 7, 7, 1]


@pytest.mark.parametrize(
    "stages", [[(4, 3)], [(-1, 3)], [(2, 3), (1, 2)], [(1, 3), (1, 2)], [(1, 10)], [(0, 4), (2, 5)]]
)
def test_impossible_stages_are_refused(stages):
    with pytest.raises(InputError):
        layer_lengths(4, 9, stages)


@given(layer=st.integers(0, 31), full=st.integers(1, 9000), data=st.data())
def test_keeping_less_or_cutting_earlier_never_costs_more(layer, full, data):
    kept = data.draw(st.integers(0, full))
    lengths = layer_lengths(32, full, [(layer, kept)])
    cost = decoder_flops(DRIVEMM, lengths)
    assert lengths == sorted(lengths, reverse=True) and sum(lengths) == layer * full + (32 - layer) * kept
    assert cost <= decoder_flops(DRIVEMM, [full] * 32)
    assert (cost == decoder_flops(DRIVEMM, [full] * 32)) == (kept == full)
    if kept:
        assert decoder_flops(DRIVEMM, layer_lengths(32, full, [(layer, kept - 1)])) < cost
    if layer:
        assert decoder_flops(DRIVEMM, layer_lengths(32, full, [(layer - 1, kept)])) <= cost


@given(first=st.integers(1, 9000), second=st.integers(1, 9000))
def test_two_prompts_cost_less_than_one_of_both(first, second):
    apart = layer_flops(DRIVEMM, first) + layer_flops(DRIVEMM, second)
    assert layer_flops(DRIVEMM, first + second) == apart + 8 * first * second * DRIVEMM.hidden_size


@pytest.mark.parametrize("model_type", ["mixtral", "qwen2_moe", "qwen3_moe", "gemma3_text", "gpt2"])
def test_other_decoders_are_refused(model_type):
    config = CONFIG_MAPPING[model_type]()
    with pytest.raises(InputError, match=model_type):
        layer_flops(config, 5)
    with pytest.raises(InputError, match=model_type):
        kv_cache_bytes(config, [5], 2)


def test_one_length_a_layer():
    with pytest.raises(InputError, match="2 lengths for a decoder of 3 layers"):
        decoder_flops(decoder_config("llama"), [5, 5])


VISION = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
GRID = torch.tensor([[1, 8, 12], [1, 4, 4], [1, 4, 4]])
QWEN_VISION = dict(depth=2, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=64, patch_size=14)


def images(count, side):
    return torch.randn(count, 3, side, side)


def patches(config):
    vision = config.vision_config
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    return torch.randn(int(GRID.prod(dim=1).sum()), width)


def vlm(family):
    """A tiny configuration, the processor's output for it, and the parts that encode images."""
    llama, qwen = decoder_config("llama"), decoder_config("qwen2")
    if family == "llava":
        vision = CONFIG_MAPPING["clip_vision_model"](image_size=28, patch_size=14, **VISION)
        config = LlavaConfig(vision_config=vision, text_config=llama, image_token_id=5)
        return config, {"pixel_values": images(3, 28)}, ("vision_tower", "multi_modal_projector")
    if family == "onevision":
        vision = CONFIG_MAPPING["siglip_vision_model"](image_size=42, patch_size=14, vision_use_head=False, **VISION)
        config = LlavaOnevisionConfig(vision_config=vision, text_config=qwen, image_token_id=5)
        sizes = {"image_sizes": torch.tensor([[90, 160]] * 2), "batch_num_images": torch.tensor([2])}
        return config, {"pixel_values": images(2, 42)[:, None], **sizes}, ("vision_tower", "multi_modal_projector")
    if family == "internvl":
        vision = CONFIG_MAPPING["internvl_vision"](image_size=[56, 56], patch_size=[14, 14], **VISION)
        config = InternVLConfig(vision_config=vision, text_config=llama, image_token_id=5)
        return config, {"pixel_values": images(2, 56)}, ("vision_tower", "multi_modal_projector")
    if family == "qwen2_5_vl":
        vision = {**QWEN_VISION, "window_size": 56, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(vision_config=vision, text_config=decoder_config("qwen2_5_vl_text").to_dict())
    else:
        vision = {**QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0], "out_hidden_size": 48}
        config = Qwen3VLConfig(vision_config=vision, text_config=decoder_config("qwen3_vl_text").to_dict())
    config.image_token_id = 5
    return config, {"pixel_values": patches(config), "image_grid_thw": GRID}, ("visual",)


FAMILIES = ["llava", "onevision", "internvl", "qwen2_5_vl", "qwen3_vl"]


@pytest.mark.parametrize("family", FAMILIES)
def test_vision_costs_what_a_real_forward_does(family):
    config, inputs, parts = vlm(family)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        features = model.get_image_features(**inputs).pooler_output
        spans = [token for image in features for token in (2, *[5] * image.shape[:-1].numel())]
        prompt = torch.tensor([[1, *spans, 3]])
        extra = {"mm_token_type_ids": (prompt == 5).int()} if "image_grid_thw" in inputs else {}
        with FlopCounterMode(display=False) as counter:
            model(input_ids=prompt, **inputs, **extra)
    by_module = counter.get_flop_counts()
    expected = sum(sum(by_module[f"{type(model).__name__}.model.{part}"].values()) for part in parts)
    assert VisionFlops(config)({**inputs, "input_ids": prompt}) == expected > 0


@pytest.mark.parametrize("family", ["onevision", "qwen3_vl"])
def test_vision_is_counted_once_a_shape(family, monkeypatch):
    config, inputs, _ = vlm(family)
    vision = VisionFlops(config)
    first = vision(inputs)
    with monkeypatch.context() as patch:
        patch.setattr(vision, "_count", None)
        assert vision({**inputs, "pixel_values": inputs["pixel_values"] + 1}) == first
    other = {
        "onevision": {"image_sizes": torch.tensor([[40, 40]])},
        "qwen3_vl": {"image_grid_thw": torch.tensor([[1, 8, 16]])},
    }
    with pytest.raises(TypeError), monkeypatch.context() as patch:
        patch.setattr(vision, "_count", None)
        vision({**inputs, **other[family]})


def test_one_image_attends_to_more_than_several_of_as_many_patches():
    config, inputs, _ = vlm("qwen3_vl")
    vision = VisionFlops(config)
    assert vision({**inputs, "image_grid_thw": torch.tensor([[1, 8, 16]])}) > vision(inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_counting_leaves_a_live_models_configuration_alone(dtype):
    config, inputs, _ = vlm("llava")
    model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation="sdpa")
    before = model.config.to_dict()
    VisionFlops(model.config)(inputs)
    assert model.config.to_dict() == before
    assert model.model.vision_tower.config._attn_implementation == "sdpa"


def test_a_tower_that_reads_pixel_values_is_refused():
    vision = VisionFlops(SmolVLMConfig())
    with pytest.raises(InputError, match="shapes alone"):
        vision({"pixel_values": torch.empty(1, 2, 3, 364, 364)})
