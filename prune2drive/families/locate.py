"""Finds a prompt's visual tokens: runs of the model's image token, which its family divides into grids.

How many tokens make an image, and which cells of its grid they are, follows from the model's config and the images'
sizes. Nothing about the text between images is assumed.

Shape suffixes: B prompts, P prompt positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.families import family_of
from prune2drive.families.base import ImageInfo
from prune2drive.token_map import TokenMap, View


def locate_batch(
    ids_BP: Tensor,
    mask_BP: Tensor | None,
    config: Any,
    cameras: Sequence[Sequence[str]] | None,
    images: ImageInfo,
) -> list[TokenMap]:
    """Finds the visual tokens of each prompt of a padded batch.

    Args:
        mask_BP: padding mask, 0 at padding; None where there is no padding.
        cameras: the cameras that each prompt's images show, in prompt order; `image_0`, `image_1`, ... by default.
        images: what is known of the batch's images.

    Returns:
        One TokenMap for each prompt, in positions of the prompt without its padding.

    Raises:
        InputError: as `locate` does.
    """
    rows = len(ids_BP)
    prompts = list(ids_BP) if mask_BP is None else [ids[real.bool()] for ids, real in zip(ids_BP, mask_BP, strict=True)]
    if images.counts:
        counts = [count for count in images.counts for _ in range(rows // len(images.counts))]
    elif cameras is not None:
        counts = [len(names) for names in cameras]
    else:
        counts = [len(_placeholder_runs(ids, config)) for ids in prompts]
    parts = images.of_prompts(counts)
    return [locate(prompts[row], config, cameras[row] if cameras else None, parts[row]) for row in range(rows)]


def locate(ids_P: Tensor, config: Any, cameras: Sequence[str] | None, images: ImageInfo) -> TokenMap:
    """Finds the visual tokens of one prompt.

    Args:
        ids_P: the prompt's token ids, without padding.
        cameras: the camera that each image shows, in prompt order; `image_0`, `image_1`, ... by default.
        images: what is known of the prompt's images.

    Raises:
        InputError: an unknown family, a prompt without visual tokens, or a number of them that fits neither the
            config nor the cameras.
    """
    family, runs = family_of(config), _placeholder_runs(ids_P, config)
    if not runs:
        raise InputError("the prompt holds no visual tokens: nothing to prune (were the images passed in?)")
    shown = family.grids(runs, config, images)
    names = [f"image_{index}" for index in range(len(shown))] if cameras is None else list(cameras)
    if len(names) != len(shown):
        raise InputError(f"the prompt shows {len(shown)} images, but {len(names)} cameras are named: {names}")
    grids = [
        (View(camera, grid.rows, grid.cols, grid.frame), grid.positions)
        for camera, image in zip(names, shown, strict=True)
        for grid in image
    ]
    return TokenMap.from_grids(grids, len(ids_P))


def _placeholder_runs(ids_P: Tensor, config: Any) -> list[Tensor]:
    """Returns the positions of the image token, as runs of consecutive positions."""
    family_of(config)  # an unknown one may have no image token
    positions = (ids_P == config.image_token_id).nonzero().flatten().cpu()
    breaks = (positions.diff() != 1).nonzero().flatten() + 1
    return [run for run in positions.tensor_split(breaks) if len(run)]
