"""LLaVA-OneVision: a padded grid and a newline for each of several images, or one image at higher resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.families.base import Family, Frame, Grid, ImageInfo, height_width, patch_grid, split_runs


def grids(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Divides the runs into images.

    Raises:
        InputError: another number of images than of sizes, or tokens that do not fit a single image's size.
    """
    rows, cols = patch_grid(config.vision_config)
    size, total = rows * cols + 1, sum(map(len, runs))
    count = images.count or (total // size if all(len(run) % size == 0 for run in runs) else 1)
    if count == 1:
        return [_single_image(torch.cat(runs), config, images, rows)]
    parts = split_runs(runs, size, "tokens an image (patches and newline)")
    sizes = images.sizes or [(1, 1)] * len(parts)
    if len(sizes) != len(parts):
        raise InputError(f"{len(parts)} images in the prompt need as many rows of image_sizes, not {len(sizes)}")
    return [[Grid(rows, cols, part[:-1], padded_frame(*size_hw))] for part, size_hw in zip(parts, sizes, strict=True)]


def padded_frame(height: int, width: int) -> Frame:
    """Returns the frame of a grid over an image that is padded to a square.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    side = max(height, width)
    x, y = (side - width) / 2 / width, (side - height) / 2 / height
    return (-x, -y, 1 + x, 1 + y)


def _single_image(positions: Tensor, config: Any, images: ImageInfo, side: int) -> list[Grid]:
    """Returns the overview's grid, then the unpadded one of the best resolution, whose rows end in a newline."""
    from transformers.image_processing_utils import select_best_resolution

    if not images.sizes:
        raise InputError(
            "a single LLaVA-OneVision image needs image_sizes to place its tokens: pass them, or token_map="
        )
    height, width = images.sizes[0]
    vision_size, _ = height_width(config.vision_config.image_size)
    best_height, best_width = select_best_resolution((height, width), config.image_grid_pinpoints)
    rows, cols = best_height // vision_size * side, best_width // vision_size * side
    if width / height > cols / rows:
        rows -= (rows - int(round(height * (cols / width), 7))) // 2 * 2
    else:
        cols -= (cols - int(round(width * (rows / height), 7))) // 2 * 2
    most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
    shrink = (rows * cols / (most * side**2)) ** 0.5
    if shrink > 1.1:
        rows, cols = int(rows // shrink), int(cols // shrink)
    if len(positions) != side**2 + rows * (cols + 1):
        raise InputError(
            f"{len(positions)} visual tokens do not fit an image of {width} x {height}: "
            f"{side**2} + {rows} x {cols} + newlines"
        )
    overview = Grid(side, side, positions[: side**2])
    detail = positions[side**2 :].reshape(rows, cols + 1)[:, :-1].flatten()
    return [overview, Grid(rows, cols, detail)] if len(detail) else [overview]


LLAVA_ONEVISION = Family(("llava_onevision",), grids, tower_layers="vision_tower.encoder.layers", takes_any_size=True)
