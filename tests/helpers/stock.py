"""Tiny checkpoints of the stock families, saved part by part as transformers does."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from helpers import originals

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}<|assistant|>"
)
SPECIAL = ["<pad>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>", "<image>", "<video>"]
SPECIAL += ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>"]
SPECIAL += ["<fake_token_around_image>", "<global-img>"]
SPECIAL += [f"<row_{row}_col_{col}>" for row in range(1, 5) for col in range(1, 5)]
TEXT = originals.TEXT
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": TEXT["hidden_size"],
    "spatial_merge_size": 2,
}
MODULES = {
    "llava": "llava.Llava",
    "llava_onevision": "llava_onevision.LlavaOnevision",
    "internvl": "internvl.InternVL",
    "qwen2_5_vl": "qwen_vl.QwenVL",
    "qwen3_vl": "qwen_vl.QwenVL",
    "smolvlm": "smolvlm.SmolVLM",
}


def target(family: str) -> str:
    return f"prune2drive.models.{MODULES[family]}"


def save(family: str, folder: Path) -> None:
    """Writes a tiny random model of the family with tokenizer, image processor and chat template."""
    tokenizer = originals.words_tokenizer(SPECIAL, TEMPLATE, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    text = {**TEXT, "vocab_size": len(tokenizer), "eos_token_id": ids["<eos>"], "pad_token_id": ids["<pad>"]}
    torch.manual_seed(0)
    model, image_processor = globals()[f"_{family}"](text, ids, len(tokenizer))
    originals.lively(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor.save_pretrained(folder)


def _llava(text: dict, ids: dict[str, int], vocabulary: int) -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**text),
        vision_config=hf.CLIPVisionConfig(**originals.VISION),
        image_token_id=ids["<image>"],
    )
    square = {"height": 56, "width": 56}
    images = CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=square)
    return hf.LlavaForConditionalGeneration(config), images


def _llava_onevision(text: dict, ids: dict[str, int], vocabulary: int) -> tuple[Any, Any]:
    config = hf.LlavaOnevisionConfig(
        text_config=hf.Qwen2Config(**text),
        vision_config=hf.SiglipVisionConfig(**originals.VISION, vision_use_head=False),
        image_token_index=ids["<image>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[56, 56], [56, 112], [112, 112], [112, 168]],
    )
    square = {"height": 56, "width": 56}
    images = LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=config.image_grid_pinpoints)
    return hf.LlavaOnevisionForConditionalGeneration(config), images


def _internvl(text: dict, ids: dict[str, int], vocabulary: int) -> tuple[Any, Any]:
    model = originals.internvl_native(vocabulary)
    model.config.image_token_id = ids["<IMG_CONTEXT>"]
    return model, GotOcr2ImageProcessorPil(size={"height": 56, "width": 56})


def _qwen2_5_vl(text: dict, ids: dict[str, int], vocabulary: int) -> tuple[Any, Any]:
    vision = {**QWEN_VISION, "patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1]}
    config = hf.Qwen2_5_VLConfig(text_config={**text, "rope_parameters": ROPE}, vision_config=vision, **_qwen(ids))
    limits = {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 64}
    return hf.Qwen2_5_VLForConditionalGeneration(config), Qwen2VLImageProcessorPil(size=limits)


def _qwen3_vl(text: dict, ids: dict[str, int], vocabulary: int) -> tuple[Any, Any]:
    vision = {**QWEN_VISION, "patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    rope = {**ROPE, "mrope_interleaved": True}
    config = hf.Qwen3VLConfig(
        text_config={**text, "head_dim": 16, "rope_parameters": rope}, vision_config=vision, **_qwen(ids)
    )
    limits = {"shortest_edge": 64 * 64, "longest_edge": 32 * 32 * 64}
    return hf.Qwen3VLForConditionalGeneration(config), Qwen2VLImageProcessorPil(size=limits, patch_size=16)


def _qwen(ids: dict[str, int]) -> dict[str, int]:
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def _smolvlm(text: dict, ids: dict[str, int], vocabulary: int) -> tuple[Any, Any]:
    config = hf.SmolVLMConfig(
        text_config=hf.LlamaConfig(**text),
        vision_config={**originals.VISION, "model_type": "smolvlm_vision"},
        image_token_id=ids["<image>"],
        scale_factor=2,
        pad_token_id=ids["<pad>"],
    )
    images = SmolVLMImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    return hf.SmolVLMForConditionalGeneration(config), images
