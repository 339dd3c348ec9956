"""Tokens, FLOPs and cache of full-size models at several keep ratios, without any weights.

    python -m benchmarks.flops_table

DriveMM and LLaVA-OneVision-0.5B have their published shapes. The other rows (`--all`) take the
default configuration of the transformers class, whose decoder may be of another size than any
released checkpoint's. Six cameras; pruned at the input of `--layer`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaOnevisionConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen3VLConfig,
    SiglipVisionConfig,
    logging,
)

from prune2drive.metrics.flops import VisionFlops, decoder_flops, kv_cache_bytes, layer_lengths, lm_head_flops
from prune2drive.pruning import TFPS
from prune2drive.pruning.selection import budget

CAMERAS = 6
WIDTH, HEIGHT = 1600, 900


@dataclass(frozen=True)
class Shape:
    """A model and its six images.

    Args:
        config: of the whole model.
        per_camera: visual tokens of one camera.
        images: the processor's output that `VisionFlops` reads.
        separators: positions that stand beside each image without being visual tokens.
    """

    config: PreTrainedConfig
    per_camera: int
    images: Mapping[str, Any]
    separators: int = 0


def onevision(text: PreTrainedConfig) -> Shape:
    """SigLIP-so400m without its last layer and head, as LLaVA-OneVision and DriveMM use it."""
    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    config = LlavaOnevisionConfig(text_config=text, vision_config=vision)
    images = {
        "pixel_values": torch.empty(CAMERAS, 1, 3, 384, 384, device="meta"),
        "image_sizes": torch.tensor([[HEIGHT, WIDTH]] * CAMERAS),
        "batch_num_images": torch.tensor([CAMERAS]),
    }
    return Shape(config, (384 // 14) ** 2, images, separators=1)


def drivemm() -> Shape:
    return onevision(
        LlamaConfig(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
        )
    )


def onevision_half_b() -> Shape:
    return onevision(
        Qwen2Config(
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )


def square(config: PreTrainedConfig) -> Shape:
    """Llava and InternVL: one square crop a camera."""
    side = config.vision_config.image_size
    side = side if isinstance(side, int) else side[0]
    images = {"pixel_values": torch.empty(CAMERAS, 3, side, side, device="meta")}
    return Shape(config, config.image_seq_length, images)


def native(config: PreTrainedConfig) -> Shape:
    """Qwen-VL: patches of the whole frame, merged in squares."""
    vision = config.vision_config
    cell = vision.patch_size * vision.spatial_merge_size
    rows, cols = round(HEIGHT / cell), round(WIDTH / cell)
    grid = torch.tensor([[1, rows * vision.spatial_merge_size, cols * vision.spatial_merge_size]] * CAMERAS)
    width = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.empty(int(grid.prod(dim=1).sum()), width, device="meta")
    return Shape(config, rows * cols, {"pixel_values": pixels, "image_grid_thw": grid})


PUBLISHED: dict[str, Callable[[], Shape]] = {"DriveMM": drivemm, "LLaVA-OneVision-0.5B": onevision_half_b}
DEFAULTS: dict[str, Callable[[], Shape]] = {
    "LlavaConfig()": lambda: square(LlavaConfig()),
    "InternVLConfig()": lambda: square(InternVLConfig()),
    "Qwen2_5_VLConfig()": lambda: native(Qwen2_5_VLConfig()),
    "Qwen3VLConfig()": lambda: native(Qwen3VLConfig()),
}
COLUMNS = "model keep visual kept text vision_T select_T prefill_T ratio_% lm_head_T kv_MB".split()


def rows(name: str, shape: Shape, args: argparse.Namespace) -> list[list[str]]:
    """One row a keep ratio; T is 1e12 FLOPs, MB are 1e6 bytes of two-byte numbers."""
    config = shape.config.get_text_config()
    layers = config.num_hidden_layers
    text = args.text + CAMERAS * shape.separators
    visual = CAMERAS * shape.per_camera
    full = decoder_flops(config, [visual + text] * layers)
    vision = VisionFlops(shape.config)(shape.images)
    table = []
    for keep in args.keep:
        kept = budget(keep, shape.per_camera)
        lengths = layer_lengths(layers, visual + text, [(args.layer, CAMERAS * kept + text)])
        flops = decoder_flops(config, lengths)
        chosen = 0 if keep == 1 else CAMERAS * TFPS().flops(shape.per_camera, kept, config.hidden_size)
        parts = [f"{part / 1e12:.3f}" for part in (vision, chosen, flops)]
        share, head = f"{100 * flops / full:.2f}", f"{lm_head_flops(config) / 1e12:.4f}"
        counts = [f"{keep:.0%}", str(visual), str(CAMERAS * kept), str(text)]
        table.append([name, *counts, *parts, share, head, f"{kv_cache_bytes(config, lengths, 2) / 1e6:.1f}"])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=float, nargs="+", default=[1, 0.25, 0.1])
    parser.add_argument("--layer", type=int, default=1)
    parser.add_argument("--text", type=int, default=120, help="prompt positions that are neither visual nor separators")
    parser.add_argument("--all", action="store_true", help="also the default configurations of other classes")
    args = parser.parse_args()
    logging.set_verbosity_error()
    table = [COLUMNS]
    for name, make in (PUBLISHED | (DEFAULTS if args.all else {})).items():
        table += rows(name, make(), args)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    main()
