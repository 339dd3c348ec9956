"""SmolVLM and Idefics3: a run of tokens for each tile after pixel shuffle."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from typing import Any

from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.families.base import Family, Grid, ImageInfo, patch_grid, split_runs, tile_grids


def grids(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Groups the tiles into images; without tile layouts every tile is an image.

    Raises:
        InputError: another number of tiles than the layouts have.
    """
    rows, cols = (side // config.scale_factor for side in patch_grid(config.vision_config))
    tiles = split_runs(runs, rows * cols, "tokens a tile")
    layouts = images.tiles or [(1, 1)] * (images.count or len(tiles))
    stops = list(accumulate(down * across + (down * across > 1) for down, across in layouts))
    if stops[-1] != len(tiles):
        raise InputError(f"{len(tiles)} tiles in the prompt do not fit {len(layouts)} images: pass token_map=")
    parts = [tiles[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
    return [tile_grids(part, rows, cols, layout) for part, layout in zip(parts, layouts, strict=True)]


SMOLVLM = Family(
    ("smolvlm",),
    grids,
    vision_modules=("vision_model", "connector"),
    pixel_inputs=("pixel_values", "pixel_attention_mask"),
    tower_layers="vision_model.encoder.layers",
    patches_a_side=lambda config: int(config.scale_factor),
)
IDEFICS3 = replace(SMOLVLM, model_types=("idefics3",), tower_layers=None)
