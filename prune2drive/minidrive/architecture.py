"""The architecture of MiniDrive's model: a stock LLaVA-OneVision that is small enough to train on a CPU."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from prune2drive.errors import InputError
from prune2drive.files import read_json, write_atomically
from prune2drive.minidrive.tokenizer import CHAT_TEMPLATE, VIDEO, build_tokenizer
from prune2drive.models.llava_onevision import ImageProcessor
from prune2drive.sample import IMAGE_MARKER

NEAR, SIMILAR = 1.3, 0.8  # strength of the initial attention to near and to similar tokens


@dataclass(frozen=True)
class Architecture:
    """Sets the sizes of vision tower and language model.

    Args:
        resolution: width and height of a camera's image in pixels, a multiple of `patch`.
        patch: width and height in pixels of the patch that becomes a visual token.
        vision_width: channels of the vision tower.
        vision_layers: layers of the vision tower.
        vision_heads: attention heads of the vision tower.
        width: channels of the language model.
        layers: decoder layers of the language model.
        heads: attention heads of the language model.
        mlp: channels within the MLP of the language model.

    Raises:
        InputError: the patches do not fit the resolution, or the heads do not fit the channels.
    """

    resolution: int = 112
    patch: int = 14
    vision_width: int = 192
    vision_layers: int = 4
    vision_heads: int = 3
    width: int = 256
    layers: int = 5
    heads: int = 4
    mlp: int = 512

    def __post_init__(self) -> None:
        if self.resolution % self.patch:
            raise InputError(f"resolution={self.resolution}: use a multiple of the patch size, {self.patch}")
        for width, heads in (("vision_width", "vision_heads"), ("width", "heads")):
            if getattr(self, width) % getattr(self, heads):
                raise InputError(f"{width}={getattr(self, width)}: use a multiple of {heads}={getattr(self, heads)}")


def build_config(sizes: Architecture) -> LlavaOnevisionConfig:
    """Builds the model's config."""
    tokenizer = build_tokenizer()
    ids = tokenizer.get_vocab()
    vision = SiglipVisionConfig(
        hidden_size=sizes.vision_width,
        intermediate_size=4 * sizes.vision_width,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.resolution,
        patch_size=sizes.patch,
        vision_use_head=False,
    )
    text = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        initializer_range=0.04,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=ids[IMAGE_MARKER],
        video_token_index=ids[VIDEO],
        image_grid_pinpoints=[[sizes.resolution, sizes.resolution]],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        tie_word_embeddings=True,
    )


def build_model(sizes: Architecture) -> LlavaOnevisionForConditionalGeneration:
    """Builds a model with random weights from torch's global generator."""
    model = LlavaOnevisionForConditionalGeneration(build_config(sizes))
    _start_attention(model)
    return model


@torch.no_grad()
def _start_attention(model: LlavaOnevisionForConditionalGeneration) -> None:
    """Initialises half of the heads to attend to near tokens and half to attend to similar tokens.

    With the usual initialisation a question's few words drown among hundreds of visual tokens, and nothing is learned
    for a long time. Under rotary embeddings, constant biases of queries and keys favour near tokens; equal weights of
    queries and keys favour similar ones.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    for layer in model.get_decoder().layers:
        query, key = layer.self_attn.q_proj, layer.self_attn.k_proj
        near, width = query.out_features // 2, query.in_features
        similar = SIMILAR * torch.linalg.qr(torch.randn(width, width, generator=generator, device="cpu"))[0][near:]
        for projection in (query, key):
            projection.bias[:near] = NEAR
            projection.weight[near:] = similar


def build_processor(resolution: int = 112, patch: int = 14) -> LlavaOnevisionProcessor:
    """Builds the processor; pass images nested per sample, so that none is split into tiles.

    Args:
        resolution: width and height in pixels to which images are resized.
        patch: width and height of a patch in pixels.
    """
    square = {"height": resolution, "width": resolution}
    images = LlavaOnevisionImageProcessorPil(
        size=square, image_grid_pinpoints=[list(square.values())], image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return ImageProcessor(
        image_processor=images,
        tokenizer=build_tokenizer(),
        num_image_tokens=(resolution // patch) ** 2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def save(model: LlavaOnevisionForConditionalGeneration, sizes: Architecture, folder: Path) -> None:
    """Writes the model in bfloat16 with its tokenizer and processor, in the layout of LLaVA-OneVision on the hub.

    Args:
        model: the model; it is converted in place.
        sizes: the model's sizes.
    """
    model.bfloat16().save_pretrained(folder)
    processor = build_processor(sizes.resolution, sizes.patch)
    processor.save_pretrained(folder)
    stock = "LlavaOnevisionProcessor"
    settings = {
        "processor_class": stock,
        "num_image_tokens": processor.num_image_tokens,
        "vision_feature_select_strategy": processor.vision_feature_select_strategy,
        "vision_aspect_ratio": processor.vision_aspect_ratio,
        "video_processor": {
            "video_processor_type": "LlavaOnevisionVideoProcessor",
            "size": {"height": sizes.resolution, "width": sizes.resolution},
        },
    }
    for name, changes in (("processor_config.json", settings), ("tokenizer_config.json", {"processor_class": stock})):
        content = read_json(folder / name) | changes
        write_atomically(folder / name, [json.dumps(content, indent=2, sort_keys=True), "\n"])
