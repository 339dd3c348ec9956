"""Weights under the names that InternVL's remote code gives them."""

import re

import torch

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
TEXT = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
}


class Noise:
    """Random tensors, each as it is asked for."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape, scale=None):
        return torch.randn(*shape, generator=self.generator) * (scale if scale is not None else shape[-1] ** -0.5)

    def near_one(self, size):
        return 1 + self(size, scale=0.1)


def original_internvl_weights(decoder: str, vocabulary: int) -> dict[str, torch.Tensor]:
    """Random weights under the names of InternVL's remote code."""
    noise, d, width = Noise(1), TEXT["hidden_size"], VISION["hidden_size"]
    weights = vision_weights(noise)
    weights |= {"mlp1.0.weight": noise.near_one(4 * width), "mlp1.0.bias": noise(4 * width)}
    weights |= {"mlp1.1.weight": noise(d, 4 * width), "mlp1.1.bias": noise(d)}
    weights |= {"mlp1.3.weight": noise(d, d), "mlp1.3.bias": noise(d)}
    layer_weights = internlm2_layer if decoder == "internlm2" else qwen2_layer
    for layer in range(TEXT["num_hidden_layers"]):
        weights |= layer_weights(noise, f"language_model.model.layers.{layer}.")
    first, last = ("tok_embeddings", "output") if decoder == "internlm2" else ("embed_tokens", "lm_head")
    return weights | {
        f"language_model.model.{first}.weight": noise(vocabulary, d, scale=1.0),
        "language_model.model.norm.weight": noise.near_one(d),
        f"language_model.{last}.weight": noise(vocabulary, d),
    }


def vision_weights(noise: Noise) -> dict[str, torch.Tensor]:
    width, mlp = VISION["hidden_size"], VISION["intermediate_size"]
    weights = {
        "vision_model.embeddings.class_embedding": noise(1, 1, width),
        "vision_model.embeddings.position_embedding": noise(1, 17, width),
        "vision_model.embeddings.patch_embedding.weight": noise(width, 3, 14, 14, scale=0.05),
        "vision_model.embeddings.patch_embedding.bias": noise(width),
    }
    for layer in range(VISION["num_hidden_layers"]):
        at = f"vision_model.encoder.layers.{layer}."
        weights |= {f"{at}ls{i}": noise.near_one(width) for i in (1, 2)}
        for name, rows, cols in (("attn.qkv", 3 * width, width), ("attn.proj", width, width)):
            weights |= {f"{at}{name}.weight": noise(rows, cols), f"{at}{name}.bias": noise(rows)}
        for name, rows, cols in (("mlp.fc1", mlp, width), ("mlp.fc2", width, mlp)):
            weights |= {f"{at}{name}.weight": noise(rows, cols), f"{at}{name}.bias": noise(rows)}
        for name in ("norm1", "norm2"):
            weights |= {f"{at}{name}.weight": noise.near_one(width), f"{at}{name}.bias": noise(width)}
    return weights


def internlm2_layer(noise: Noise, at: str) -> dict[str, torch.Tensor]:
    d, ffn, heads = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["num_attention_heads"]
    return {
        f"{at}attention.wqkv.weight": noise((heads + 2 * TEXT["num_key_value_heads"]) * d // heads, d),
        f"{at}attention.wo.weight": noise(d, d),
        f"{at}feed_forward.w1.weight": noise(ffn, d),
        f"{at}feed_forward.w2.weight": noise(d, ffn),
        f"{at}feed_forward.w3.weight": noise(ffn, d),
        f"{at}attention_norm.weight": noise.near_one(d),
        f"{at}ffn_norm.weight": noise.near_one(d),
    }


def qwen2_layer(noise: Noise, at: str) -> dict[str, torch.Tensor]:
    d, ffn, heads = TEXT["hidden_size"], TEXT["intermediate_size"], TEXT["num_attention_heads"]
    weights = {}
    for name, count in (("q", heads), ("k", TEXT["num_key_value_heads"]), ("v", TEXT["num_key_value_heads"])):
        weights |= {f"{at}self_attn.{name}_proj.weight": noise(count * d // heads, d)}
        weights |= {f"{at}self_attn.{name}_proj.bias": noise(count * d // heads)}
    return weights | {
        f"{at}self_attn.o_proj.weight": noise(d, d),
        f"{at}mlp.gate_proj.weight": noise(ffn, d),
        f"{at}mlp.down_proj.weight": noise(d, ffn),
        f"{at}mlp.up_proj.weight": noise(ffn, d),
        f"{at}input_layernorm.weight": noise.near_one(d),
        f"{at}post_attention_layernorm.weight": noise.near_one(d),
    }


def with_adapters(weights: dict[str, torch.Tensor], style: str, rank: int = 4) -> dict[str, torch.Tensor]:
    """Adapters on the matrices of the decoder that InternVL's training wraps: beside them, or merged."""
    generator = torch.Generator().manual_seed(2)
    targets = re.compile(r"language_model\.model\.layers\.\d+\.(attention|feed_forward)\.(wqkv|wo|w1|w2|w3)\.weight$")
    found = {}
    for name, tensor in weights.items():
        wrapped = name.replace("language_model.", "language_model.base_model.model.", 1)
        wrapped = name if style == "merged" else wrapped
        if not targets.match(name):
            found[wrapped] = tensor
            continue
        down = torch.randn(rank, tensor.shape[1], generator=generator) * 0.1
        up = torch.randn(tensor.shape[0], rank, generator=generator) * 0.1
        if style == "merged":
            found[name] = tensor + 2 * up @ down
            continue
        stem = wrapped.removesuffix(".weight")
        found[f"{stem}.base_layer.weight" if style == "new" else f"{stem}.weight"] = tensor
        found[f"{stem}.lora_A.default.weight"], found[f"{stem}.lora_B.default.weight"] = down, up
    return found
