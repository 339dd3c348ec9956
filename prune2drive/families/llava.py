"""LLaVA-1.5: one grid an image, of a CLIP or SigLIP tower."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from prune2drive.families.base import Family, Grid, ImageInfo, patch_grid, split_runs


def has_class_token(config: Any) -> bool:
    """Tells whether the vision tower has a class token, as CLIP's has."""
    return bool(config.vision_config.model_type == "clip_vision_model")


def grids(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Divides the runs into images and leaves out the class token, where the prompt holds it."""
    rows, cols = patch_grid(config.vision_config)
    class_tokens = int(config.vision_feature_select_strategy == "full" and has_class_token(config))
    size = rows * cols + class_tokens
    return [[Grid(rows, cols, image[class_tokens:])] for image in split_runs(runs, size, "tokens an image")]


LLAVA = Family(("llava",), grids, tower_layers="vision_tower.encoder.layers", takes_any_size=True)
