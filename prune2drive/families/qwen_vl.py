"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: start and end tokens around each image, whose grid follows its size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.families.base import Decoder, Family, Grid, ImageInfo


def grids(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Lays each run, which is an image, out as its patch grid after spatial merging.

    Raises:
        InputError: another number of images than of patch grids, or a run that does not fit its grid.
    """
    if images.grid_thw is None or len(images.grid_thw) != len(runs):
        raise InputError(
            f"{len(runs)} images in the prompt need as many rows of image_grid_thw: pass it, or token_map="
        )
    merge = config.vision_config.spatial_merge_size
    shown = []
    for run, (time, height, width) in zip(runs, images.grid_thw, strict=True):
        rows, cols = height // merge, width // merge
        if len(run) != time * rows * cols:
            raise InputError(f"a run of {len(run)} visual tokens does not fit its grid {time} x {rows} x {cols}")
        shown.append([Grid(rows, cols, moment) for moment in torch.split(run, rows * cols)])
    return shown


QWEN_VL = Family(("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), grids, vision_modules=("visual",))
QWEN2_DECODER = Decoder(("qwen2_vl_text", "qwen2_5_vl_text"), has_gated_mlp=True, rope_axes=3)
QWEN3_EXPERTS = Decoder(
    ("qwen3_vl_moe_text",),
    rope_axes=3,
    adds_features="_deepstack_process",
    feature_inputs=("visual_pos_masks", "deepstack_visual_embeds"),
)
QWEN3_DECODER = replace(QWEN3_EXPERTS, model_types=("qwen3_vl_text",), has_gated_mlp=True)
