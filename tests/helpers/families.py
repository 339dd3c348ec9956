"""Tiny random-weight models of every supported family, and prompts for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from torch import Tensor

from prune2drive.token_map import TokenMap

IMAGE, VOCABULARY, PAD = 7, 96, 0
CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK")
TOKENS = 16  # visual tokens a camera in every family below
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
TEXT = {**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = {"pad_token_id": PAD, "bos_token_id": 1, "eos_token_id": None}
CONFIGS = Path(__file__).resolve().parents[2] / "configs/pruner"
PRUNERS = sorted(set(CONFIGS.glob("*.yaml")) - {CONFIGS / "learned.yaml"})  # which needs weights for the model


WINDOWED = ("qwen2_5_vl", "qwen3_vl")  # whose vision towers attend in windows, and take patches, not images
TILED = ("internvl", "smolvlm")  # whose images are of one size, or cut into tiles


def is_refused(pruner: Any, name: str) -> bool:
    """Whether a family cannot run a method, by what the method says it needs."""
    needs = pruner.traits
    return (needs.needs_vision and name in WINDOWED) or (needs.resizes_images and name in WINDOWED + TILED)


@dataclass
class Family:
    """A model, and how one prompt's images are passed to it."""

    model: Any
    separators: tuple[int, int]  # ids before and after each image's run
    run: int  # placeholders an image
    images: Callable[[torch.Generator, int], dict[str, Tensor]] | None

    def inputs(
        self, texts: list[list[int]], seeds: list[int] | None = None, counts: list[int] | None = None
    ) -> dict[str, Tensor]:
        """A left-padded batch: each text's ids, then its images' runs, then the text again, reversed."""
        before, after = self.separators
        image = [before, *[IMAGE] * self.run, after]
        seeds = seeds or list(range(len(texts)))
        counts = counts or [len(CAMERAS)] * len(texts)
        prompts = [text + image * count + text[::-1] for text, count in zip(texts, counts, strict=True)]
        longest = max(map(len, prompts))
        ids = torch.tensor([[PAD] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        batch = {"input_ids": ids, "attention_mask": mask}
        if self.images is not None:
            parts = [
                self.images(torch.Generator().manual_seed(seed), count)
                for seed, count in zip(seeds, counts, strict=True)
            ]
            batch |= {key: _joined([part[key] for part in parts]) for key in parts[0]}
        if "image_grid_thw" in batch:
            batch["mm_token_type_ids"] = (ids == IMAGE).int()
        return batch

    def naming(self, texts: list[list[int]], counts: list[int] | None = None) -> dict[str, Any]:
        """What `prune` has to be told about the prompts of `inputs`."""
        cameras = [CAMERAS[:count] for count in counts or [len(CAMERAS)] * len(texts)]
        if self.images is not None:
            return {"cameras": cameras}
        return {"token_map": [text_map(text, cameras=names) for text, names in zip(texts, cameras, strict=True)]}


def llava_onevision(text: str = "qwen2") -> Family:
    make = {"qwen2": hf.Qwen2Config, "llama": hf.LlamaConfig}[text]
    config = hf.LlavaOnevisionConfig(
        text_config=make(**TEXT, **IDS),
        vision_config=hf.SiglipVisionConfig(**VISION, image_size=28, patch_size=7, vision_use_head=False),
        image_token_id=IMAGE,
        image_grid_pinpoints=[[28, 28], [28, 56], [56, 28], [56, 56]],
    )
    return Family(
        hf.LlavaOnevisionForConditionalGeneration(config),
        (8, 9),
        TOKENS + 1,
        lambda generator, count: {
            "pixel_values": torch.randn(count, 1, 3, 28, 28, generator=generator),
            "image_sizes": torch.tensor([[28, 50]] * count),
            "batch_num_images": torch.tensor([count]),
        },
    )


def smolvlm() -> Family:
    config = hf.SmolVLMConfig(
        text_config=hf.LlamaConfig(**TEXT, **IDS),
        vision_config={**VISION, "image_size": 56, "patch_size": 7, "model_type": "smolvlm_vision"},
        image_token_id=IMAGE,
        scale_factor=2,
        pad_token_id=PAD,
    )
    return Family(
        hf.SmolVLMForConditionalGeneration(config),
        (8, 9),
        TOKENS,
        lambda generator, count: {"pixel_values": torch.randn(1, count, 3, 56, 56, generator=generator)},
    )


def internvl() -> Family:
    config = hf.InternVLConfig(
        text_config=hf.Qwen2Config(**TEXT, **IDS),
        vision_config=hf.InternVLVisionConfig(**VISION, image_size=[56, 56], patch_size=[7, 7]),
        image_token_id=IMAGE,
        downsample_ratio=0.5,
    )
    return Family(
        hf.InternVLForConditionalGeneration(config),
        (8, 9),
        TOKENS,
        lambda generator, count: {"pixel_values": torch.randn(count, 3, 56, 56, generator=generator)},
    )


def llava() -> Family:
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**TEXT, **IDS),
        vision_config=hf.CLIPVisionConfig(**VISION, image_size=28, patch_size=7),
        image_token_id=IMAGE,
    )
    return Family(
        hf.LlavaForConditionalGeneration(config),
        (8, 9),
        TOKENS,
        lambda generator, count: {"pixel_values": torch.randn(count, 3, 28, 28, generator=generator)},
    )


def _qwen_images(width: int) -> Callable[[torch.Generator, int], dict[str, Tensor]]:
    def images(generator: torch.Generator, count: int) -> dict[str, Tensor]:
        return {
            "pixel_values": torch.randn(count * 64, width, generator=generator),
            "image_grid_thw": torch.tensor([[1, 8, 8]] * count),
        }

    return images


ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
QWEN_IDS = {"image_token_id": IMAGE, "vision_start_token_id": 8, "vision_end_token_id": 9, "video_token_id": 6}


def qwen2_5_vl() -> Family:
    config = hf.Qwen2_5_VLConfig(
        text_config={**TEXT, **IDS, "rope_parameters": ROPE},
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        **QWEN_IDS,
    )
    return Family(hf.Qwen2_5_VLForConditionalGeneration(config), (8, 9), TOKENS, _qwen_images(3 * 2 * 14 * 14))


def qwen3_vl() -> Family:
    config = hf.Qwen3VLConfig(
        text_config={**TEXT, **IDS, "head_dim": 8, "rope_parameters": {**ROPE, "mrope_interleaved": True}},
        vision_config={
            "depth": 3,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        **QWEN_IDS,
    )
    return Family(hf.Qwen3VLForConditionalGeneration(config), (8, 9), TOKENS, _qwen_images(3 * 2 * 16 * 16))


def llama() -> Family:
    return Family(hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, **IDS)), (8, 9), TOKENS, None)


def qwen2() -> Family:
    return Family(hf.Qwen2ForCausalLM(hf.Qwen2Config(**TEXT, **IDS)), (8, 9), TOKENS, None)


FAMILIES: dict[str, Callable[[], Family]] = {
    "llava_onevision": llava_onevision,
    "llava_onevision_llama": lambda: llava_onevision("llama"),
    "internvl": internvl,
    "smolvlm": smolvlm,
    "llava": llava,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "llama": llama,
    "qwen2": qwen2,
}


KINDS = ("llava_onevision", "llava", "qwen2_5_vl", "qwen3_vl")  # VLMs on two decoders without and two with mRoPE
ALIKE = ("llava_onevision_llama", "internvl", "smolvlm")  # VLMs on the same decoders, behind other vision towers
LOOKING = ("cdpruner", "fastv", "resize", "tfps", "visionzip", "vispruner")


def tried_with(method: str) -> tuple[str, ...]:
    """VLMs to try a method of configs/pruner with: one of each kind.

    All for T-FPS, and for methods that look at more than states: images, the vision tower, the question or attention.
    """
    return KINDS + ALIKE if method in LOOKING else KINDS


def make(name: str, attention: str = "sdpa") -> Family:
    """The family's model with seeded weights that are large enough for answers to depend on the input."""
    torch.manual_seed(0)
    family = FAMILIES[name]()
    family.model.eval()
    family.model.set_attn_implementation(attention)
    with torch.no_grad():
        for parameter in family.model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * parameter.shape[-1] ** -0.5 * 1.5)
    return family


def _joined(parts: list[Tensor]) -> Tensor:
    """The rows of all prompts; where a row holds a prompt's images, shorter ones are filled with black images."""
    longest = max(part.shape[1] if part.ndim > 1 else 0 for part in parts)
    short = [part.ndim > 1 and part.shape[1] < longest for part in parts]
    filled = [
        torch.cat([part, part.new_zeros(len(part), longest - part.shape[1], *part.shape[2:])], dim=1) if less else part
        for part, less in zip(parts, short, strict=True)
    ]
    return torch.cat(filled)


def text_map(text: list[int], run: int = TOKENS, cameras: tuple[str, ...] = CAMERAS) -> TokenMap:
    """The TokenMap of a prompt made by `Family.inputs` for a bare decoder."""
    first = len(text) + 1
    spans = {camera: (first + i * (run + 2), first + i * (run + 2) + run) for i, camera in enumerate(cameras)}
    return TokenMap.from_spans(spans, 2 * len(text) + len(cameras) * (run + 2))
