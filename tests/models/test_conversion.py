"""Checkpoints in their original formats: nothing missing, nothing left over, the same numbers."""

import math
import shutil

import pytest
import torch
from helpers import originals
from safetensors.torch import load_file, save_file

from prune2drive.errors import InputError
from prune2drive.models.conversion import __main__ as command
from prune2drive.models.conversion import load_internvl_chat, load_llava_next, open_original
from prune2drive.models.conversion.weights import Weights

SIZES = originals.TEXT
HEADS, KV_HEADS = SIZES["num_attention_heads"], SIZES["num_key_value_heads"]
SIZE = SIZES["hidden_size"] // HEADS
TOWER = "siglip-so400m-patch14-384"


def inputs(model, images=2):
    """Two prompts of one camera each, pixels and all."""
    side = model.config.vision_config.image_size
    side = side if isinstance(side, int) else side[0]
    count = 17 if model.config.model_type == "llava_onevision" else 4
    ids = torch.randint(0, 20, (images, 8), generator=torch.Generator().manual_seed(3))
    ids = torch.cat([ids[:, :3], torch.full((images, count), model.config.image_token_id), ids[:, 3:]], dim=1)
    pixels = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(4))
    if model.config.model_type != "llava_onevision":
        return {"input_ids": ids, "pixel_values": pixels}
    extra = {"image_sizes": torch.tensor([[side, side]] * images), "batch_num_images": torch.tensor([2])}
    return {"input_ids": ids.reshape(1, -1), "pixel_values": pixels[:, None], **extra}


@torch.no_grad()
def logits(model):
    return model(**inputs(model)).logits


def test_llava_next(llava):
    folder, expected = llava
    found = load_llava_next(folder, vision_config=originals.VISION)
    assert found.config.image_token_id == expected.config.image_token_id
    assert found.config.text_config.rope_parameters == expected.config.text_config.rope_parameters
    assert torch.equal(logits(found), logits(expected))


def test_a_tower_is_known_by_its_name(llava):
    """Its shape then follows from nothing in the folder."""
    assert open_original(llava[0]).config.vision_config.num_hidden_layers == 26


def test_weights_that_are_too_small_for_the_tower(llava):
    with pytest.raises(InputError, match=r"mismatched|missing|size"):
        load_llava_next(llava[0], originals.VISION | {"hidden_size": 64})


def test_an_id_for_the_image_token(llava):
    assert load_llava_next(llava[0], originals.VISION, image_token_id=5).config.image_token_id == 5
    with pytest.raises(InputError, match="image_token_id=999: the vocabulary has ids 0 to"):
        load_llava_next(llava[0], originals.VISION, image_token_id=999)


def test_an_unused_id_where_the_tokenizer_reserves_none(tmp_path):
    expected = originals.drivemm(tmp_path / "m", reserved=False)
    original = open_original(tmp_path / "m")
    assert original.config.image_token_id == expected.config.image_token_id
    assert original.tokenizer.convert_ids_to_tokens(original.config.image_token_id) == "<image>"


@pytest.mark.parametrize("style", [None, "new", "old", "merged"])
def test_internvl_chat(style, chats):
    """Attention of the first layer as the remote code computes it from its joined matrix and its adapters."""
    folder, weights = chats[style]
    model = load_internvl_chat(folder)
    text = model.model.language_model
    hidden = torch.randn(1, 6, SIZES["hidden_size"], generator=torch.Generator().manual_seed(5))
    positions = torch.arange(6)[None]
    seen = {}
    layer = text.layers[0].self_attn
    for name in ("q_proj", "k_proj", "v_proj"):
        getattr(layer, name).register_forward_hook(lambda module, args, out, name=name: seen.update({name: out}))
    mask = torch.full((6, 6), -torch.inf).triu(1)[None, None]
    found, _ = layer(hidden, text.rotary_emb(hidden, positions), attention_mask=mask)
    joined = linear(weights, "attention.wqkv", hidden).reshape(6, KV_HEADS, HEADS // KV_HEADS + 2, SIZE)
    query, key, value = joined[:, :, :-2].flatten(1, 2), joined[:, :, -2], joined[:, :, -1]
    assert torch.allclose(seen["q_proj"].reshape(6, HEADS, SIZE), query, atol=1e-5)
    assert torch.allclose(seen["k_proj"].reshape(6, KV_HEADS, SIZE), key, atol=1e-5)
    assert torch.allclose(seen["v_proj"].reshape(6, KV_HEADS, SIZE), value, atol=1e-5)
    mixed = torch.zeros(6, HEADS, SIZE)
    for head in range(HEADS):
        group = head // (HEADS // KV_HEADS)
        turned, against = rotated(query[:, head]), rotated(key[:, group])
        scores = turned @ against.T / math.sqrt(SIZE) + mask[0, 0]
        mixed[:, head] = scores.softmax(dim=-1) @ value[:, group]
    expected = linear(weights, "attention.wo", mixed.reshape(1, 6, -1))
    assert torch.allclose(found, expected, atol=1e-5)
    inner = linear(weights, "feed_forward.w1", hidden)
    gated = torch.nn.functional.silu(inner) * linear(weights, "feed_forward.w3", hidden)
    assert torch.allclose(text.layers[0].mlp(hidden), linear(weights, "feed_forward.w2", gated), atol=1e-5)


def linear(weights, name, hidden):
    """A product of the first layer, adapters applied beside the weight rather than merged into it."""
    mine = {key: tensor for key, tensor in weights.items() if f"layers.0.{name}." in key}
    base = next(tensor for key, tensor in mine.items() if "lora" not in key)
    down, up = (next((t for key, t in mine.items() if f"lora_{side}" in key), None) for side in "AB")
    product = hidden @ base.T
    return product if down is None else product + 2 * (hidden @ down.T) @ up.T


def rotated(vectors):
    """Rotary embedding with theta 1e6 at positions 0, 1, ..."""
    half = SIZE // 2
    angles = torch.arange(len(vectors))[:, None] * 1e6 ** -(torch.arange(half) / half)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    return vectors * cos + torch.cat([-vectors[:, half:], vectors[:, :half]], dim=1) * sin


def test_adapters_beside_and_merged_are_the_same_model(chats):
    found = {style: logits(load_internvl_chat(chats[style][0])) for style in chats}
    assert torch.allclose(found["new"], found["merged"], atol=1e-4) and torch.equal(found["new"], found["old"])
    assert not torch.allclose(found["new"], found[None], atol=1e-2)


def test_adapters_are_merged_in_full_precision(chats, tmp_path):
    """In bfloat16 a small product would be rounded twice."""
    folder, weights = chats["new"]
    shutil.copytree(folder, tmp_path / "half")
    for file in (tmp_path / "half").glob("*.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    original = open_original(tmp_path / "half")
    state = original.state_dict(Weights(original.folder))
    stem = "language_model.base_model.model.model.layers.0.attention.wo"
    base, up, down = (
        weights[f"{stem}.{part}.weight"].bfloat16().float()
        for part in ("base_layer", "lora_B.default", "lora_A.default")
    )
    assert torch.equal(
        state["model.language_model.layers.0.self_attn.o_proj.weight"], (base + 2 * up @ down).bfloat16()
    )


def test_the_vision_tower_of_internvl(chats):
    """One layer of InternViT from its formulas: joined qkv, layer scales, two norms."""
    folder, weights = chats[None]
    model = load_internvl_chat(folder).model.vision_tower
    at = "vision_model.encoder.layers.0."
    width, heads = originals.VISION["hidden_size"], originals.VISION["num_attention_heads"]
    hidden = torch.randn(1, 17, width, generator=torch.Generator().manual_seed(6))

    def norm(x, name):
        return torch.nn.functional.layer_norm(
            x, (width,), weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"], 1e-6
        )

    def project(x, name):
        return x @ weights[f"{at}{name}.weight"].T + weights[f"{at}{name}.bias"]

    query, key, value = project(norm(hidden, "norm1"), "attn.qkv")[0].reshape(17, 3, heads, -1).permute(1, 2, 0, 3)
    mixed = (query @ key.transpose(1, 2) / math.sqrt(width // heads)).softmax(-1) @ value
    hidden1 = hidden + weights[f"{at}ls1"] * project(mixed.transpose(0, 1).reshape(1, 17, width), "attn.proj")
    inner = torch.nn.functional.gelu(project(norm(hidden1, "norm2"), "mlp.fc1"))
    expected = hidden1 + weights[f"{at}ls2"] * project(inner, "mlp.fc2")
    found = model.encoder.layer[0](hidden)
    assert torch.allclose(found[0] if isinstance(found, tuple) else found, expected, atol=1e-5)
    start = model.embeddings(torch.zeros(1, 3, 56, 56))
    start = start[0] if isinstance(start, tuple) else start
    first = (
        weights["vision_model.embeddings.class_embedding"]
        + weights["vision_model.embeddings.position_embedding"][:, :1]
    )
    assert torch.allclose(start[:, :1], first, atol=1e-6)


def test_qwen2_decoders_keep_their_names(tmp_path):
    weights = originals.internvl_chat(tmp_path / "mini", decoder="qwen2", template="Hermes-2")
    model = load_internvl_chat(tmp_path / "mini")
    assert model.config.text_config.model_type == "qwen2"
    key = "language_model.model.layers.2.self_attn.k_proj.bias"
    assert torch.equal(model.model.language_model.layers[2].self_attn.k_proj.bias, weights[key])
    assert torch.equal(model.lm_head.weight, weights["language_model.lm_head.weight"])


def test_the_sentencepiece_tokenizer(chats):
    import sentencepiece

    folder = chats[None][0]
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    tokenizer = open_original(folder).tokenizer
    for text in ("the ego vehicle", "the  view\n of ünïcode 前", " left right back", "1,2;3"):
        assert tokenizer.encode(text, add_special_tokens=False) == pieces.encode(text)
        assert tokenizer.decode(pieces.encode(text)) == text
    ends = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<img>", "<IMG_CONTEXT>"])
    assert tokenizer.encode("<|im_start|><img><IMG_CONTEXT>", add_special_tokens=False) == ends


def test_generation_ends_with_the_turn(chats, llava):
    chat, onevision = open_original(chats[None][0]), open_original(llava[0])
    assert chat.tokenizer.convert_tokens_to_ids("<|im_end|>") in chat.generation_config().eos_token_id
    assert onevision.tokenizer.convert_tokens_to_ids("<|eot_id|>") in onevision.generation_config().eos_token_id


@pytest.mark.parametrize("kind", ["llava", "chat"])
def test_a_converted_folder_is_the_same_model(kind, llava, chats, tmp_path, capsys, monkeypatch):
    from transformers import AutoModelForImageTextToText

    source = llava[0] if kind == "llava" else chats["new"][0]
    if kind == "llava":
        monkeypatch.setitem(
            open_original.__globals__["LlavaNext"].state_dict.__globals__["TOWERS"], TOWER, originals.VISION
        )
    assert command.main([str(source), str(tmp_path / "out")]) == 0
    before = load_llava_next(source) if kind == "llava" else load_internvl_chat(source)
    after = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits(before), logits(after)) and str(tmp_path / "out") in capsys.readouterr().out
    names = set(load_file(tmp_path / "out" / "model.safetensors"))
    assert not any("wqkv" in name or "mm_projector" in name or "lora" in name for name in names)
    assert after.generation_config.eos_token_id == before.generation_config.eos_token_id
    assert command.main([str(source), str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [{"dtype": torch.bfloat16}, {"device_map": "cpu"}, {"attn_implementation": "eager"}]
)
def test_options_of_from_pretrained(options, llava, chats):
    for model in (
        load_llava_next(llava[0], originals.VISION, **options),
        load_internvl_chat(chats["new"][0], **options),
    ):
        assert model.dtype == options.get("dtype", torch.float32)
        expected = options.get("attn_implementation", "sdpa")
        assert model.config.get_text_config()._attn_implementation == expected
