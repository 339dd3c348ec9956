"""InternVL: start and end tokens around each image, and a grid for each of its tiles after pixel shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.families.base import Family, Grid, ImageInfo, patch_grid, split_runs, tile_grids


def grids(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Divides each run, which is an image, into tiles.

    Raises:
        InputError: another number of images or tiles than of layouts.
    """
    rows, cols = (int(side * config.downsample_ratio) for side in patch_grid(config.vision_config))
    tiles = [split_runs([run], rows * cols, "tokens a tile") for run in runs]
    layouts: Sequence[tuple[int, int] | None] = images.tiles or [None] * len(tiles)
    if len(layouts) != len(tiles):
        raise InputError(f"{len(tiles)} images in the prompt need as many tile layouts, not {len(layouts)}")
    return [tile_grids(parts, rows, cols, layout) for parts, layout in zip(tiles, layouts, strict=True)]


INTERNVL = Family(
    ("internvl",),
    grids,
    tower_layers="vision_tower.encoder.layer",
    patches_a_side=lambda config: round(1 / config.downsample_ratio),
)
