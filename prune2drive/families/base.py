"""Where a prompt's visual tokens are, by model family: part of the shared vocabulary, beside TokenMap.

Placeholders of the model's image token form runs; how many of them make an image, and which cells of
its grid they are, follows from the model's config and the images' sizes. Nothing about the text
between images is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.image_processing_utils import select_best_resolution

from prune2drive.errors import InputError
from prune2drive.token_map import TokenMap, View

FULL_FRAME = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Grid:
    """One grid of tokens of an image: its prompt positions in raster order."""

    rows: int
    cols: int
    at: Tensor
    frame: tuple[float, float, float, float] = FULL_FRAME


@dataclass(frozen=True)
class ImageInfo:
    """What is known of the images besides their placeholders: of a whole batch, or of one prompt.

    Args:
        counts: images in each prompt.
        sizes: (height, width) of each image in pixels, prompt after prompt.
        grid_thw: (time, height, width) of each image in patches, for the Qwen families.
        tiles: (rows, columns) of the tiles that each image is cut into, for the families that cut.
    """

    counts: Sequence[int] | None = None
    sizes: Sequence[Sequence[int]] | None = None
    grid_thw: Sequence[Sequence[int]] | None = None
    tiles: Sequence[tuple[int, int]] | None = None

    @classmethod
    def of_call(cls, given: Mapping[str, Any]) -> ImageInfo:
        """From the arguments, by name, that a model's vision encoder was called with."""
        values = (given.get(name) for name in ("batch_num_images", "image_sizes", "image_grid_thw"))
        return cls(*(value.tolist() if isinstance(value, Tensor) else value for value in values))

    @property
    def count(self) -> int | None:
        return self.counts[0] if self.counts else None

    def of_prompts(self, counts: Sequence[int]) -> list[ImageInfo]:
        """Components a batch's images into its prompts, `counts[i]` images each.

        Beams repeat each prompt in place; the images are given once.
        """
        given = len(self.sizes or self.grid_thw or self.tiles or ())
        repeats = max(1, sum(counts) // given) if given and sum(counts) % given == 0 else 1
        parts, start = [], 0
        for row in range(len(counts)):
            stop = start + counts[row]
            mine: Any = [each and each[start:stop] for each in (self.sizes, self.grid_thw, self.tiles)]
            parts.append(ImageInfo([counts[row]], *mine))
            if (row + 1) % repeats == 0:
                start = stop
        return parts


def locate_batch(
    ids_BP: Tensor,
    mask_BP: Tensor | None,
    config: PreTrainedConfig,
    cameras: Sequence[Sequence[str]] | None,
    images: ImageInfo,
) -> list[TokenMap]:
    """The TokenMap of each prompt of a padded batch, in coordinates of the prompt without padding.

    Args:
        ids_BP: token ids.
        mask_BP: 0 at padding; None where there is none.
        config: the model's config.
        cameras: for each prompt the cameras its images show, in order.
        images: what is known of the batch's images.

    Raises:
        InputError: see `locate`.
    """
    rows = len(ids_BP)
    prompts = list(ids_BP) if mask_BP is None else [ids[seen.bool()] for ids, seen in zip(ids_BP, mask_BP, strict=True)]
    if images.counts:
        counts = [count for count in images.counts for _ in range(rows // len(images.counts))]
    elif cameras is not None:
        counts = [len(names) for names in cameras]
    else:
        counts = [len(_runs(_placeholders(ids, config))) for ids in prompts]
    parts = images.of_prompts(counts)
    return [locate(prompts[row], config, cameras[row] if cameras else None, parts[row]) for row in range(rows)]


def locate(ids_P: Tensor, config: PreTrainedConfig, cameras: Sequence[str] | None, images: ImageInfo) -> TokenMap:
    """Finds the visual tokens of one prompt.

    Args:
        ids_P: the prompt's token ids, without padding.
        config: the model's config.
        cameras: the camera each image shows, in prompt order; `image_0`, `image_1`, ... by default.
        images: what is known of this prompt's images.

    Raises:
        InputError: a family whose layout is unknown here, no visual tokens in the prompt, or a number of
            them that fits neither the config nor the cameras.
    """
    runs = _runs(_placeholders(ids_P, config))
    if not runs:
        raise InputError("the prompt holds no visual tokens: nothing to prune (were the images passed in?)")
    found = _FAMILIES[config.model_type](runs, config, images)
    if cameras is None:
        cameras = [f"image_{index}" for index in range(len(found))]
    if len(cameras) != len(found):
        raise InputError(f"the prompt shows {len(found)} images, but {len(cameras)} cameras are named: {list(cameras)}")
    grids = [
        (View(camera, grid.rows, grid.cols, grid.frame), grid.at)
        for camera, image in zip(cameras, found, strict=True)
        for grid in image
    ]
    return TokenMap.from_grids(grids, len(ids_P))


def _placeholders(ids_P: Tensor, config: Any) -> Tensor:
    """Positions of the image token, ascending."""
    if config.model_type not in _FAMILIES:
        raise InputError(
            f"where {config.model_type!r} models have their visual tokens is not known here (only for "
            f"{', '.join(_FAMILIES)}): pass token_map="
        )
    return (ids_P == config.image_token_id).nonzero().flatten().cpu()


def padded_frame(height: int, width: int) -> tuple[float, float, float, float]:
    """The frame of a grid over an image that was padded to a square."""
    side = max(height, width)
    x, y = (side - width) / 2 / width, (side - height) / 2 / height
    return (-x, -y, 1 + x, 1 + y)


def _runs(at_V: Tensor) -> list[Tensor]:
    """Splits ascending positions where they are not consecutive."""
    breaks = (at_V.diff() != 1).nonzero().flatten() + 1
    return [run for run in at_V.tensor_split(breaks) if len(run)]


def _split(runs: Sequence[Tensor], size: int, what: str) -> list[Tensor]:
    """Cuts runs into images of `size` tokens: adjacent images share a run."""
    for run in runs:
        if len(run) % size:
            raise InputError(f"a run of {len(run)} visual tokens is no multiple of {what} = {size}")
    return [image for run in runs for image in run.split(size)]


def _side(value: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) of a size that configs give as one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _patch_grid(vision: Any) -> tuple[int, int]:
    (height, width), (patch_height, patch_width) = _side(vision.image_size), _side(vision.patch_size)
    return height // patch_height, width // patch_width


def _llava(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    rows, cols = _patch_grid(config.vision_config)
    has_class_token = (
        config.vision_feature_select_strategy == "full" and config.vision_config.model_type == "clip_vision_model"
    )
    size = rows * cols + has_class_token
    return [[Grid(rows, cols, at[int(has_class_token) :])] for at in _split(runs, size, "tokens an image")]


def _llava_onevision(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Several images: a padded grid and a newline each. One image: its overview, then the anyres grid."""
    rows, cols = _patch_grid(config.vision_config)
    size, total = rows * cols + 1, sum(map(len, runs))
    count = images.count or (total // size if all(len(run) % size == 0 for run in runs) else 1)
    if count == 1:
        return [_anyres(torch.cat(runs), config, images, rows)]
    parts = _split(runs, size, "tokens an image (patches and newline)")
    sizes = images.sizes or [(1, 1)] * len(parts)
    if len(sizes) != len(parts):
        raise InputError(f"{len(parts)} images in the prompt need as many rows of image_sizes, not {len(sizes)}")
    return [[Grid(rows, cols, at[:-1], padded_frame(*size_hw))] for at, size_hw in zip(parts, sizes, strict=True)]


def _anyres(at: Tensor, config: Any, images: ImageInfo, side: int) -> list[Grid]:
    """The overview grid, then the unpadded grid of the best resolution, whose rows end in a newline."""
    if not images.sizes:
        raise InputError(
            "a single LLaVA-OneVision image needs image_sizes to place its tokens: pass them, or token_map="
        )
    height, width = images.sizes[0]
    vision_size = _side(config.vision_config.image_size)[0]
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
    if len(at) != side**2 + rows * (cols + 1):
        raise InputError(
            f"{len(at)} visual tokens do not fit an image of {width} x {height}: {side**2} + {rows} x {cols} + newlines"
        )
    detail = at[side**2 :].reshape(rows, cols + 1)[:, :-1].flatten()
    return [Grid(side, side, at[: side**2]), *([Grid(rows, cols, detail)] if len(detail) else [])]


def _internvl(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Start and end tokens part the images; an image of several tiles has one grid a tile."""
    rows, cols = (int(side * config.downsample_ratio) for side in _patch_grid(config.vision_config))
    tiles = [_split([run], rows * cols, "tokens a tile") for run in runs]
    layouts: Sequence[tuple[int, int] | None] = images.tiles or [None] * len(tiles)
    if len(layouts) != len(tiles):
        raise InputError(f"{len(tiles)} images in the prompt need as many tile layouts, not {len(layouts)}")
    return [_tiled(parts, rows, cols, layout) for parts, layout in zip(tiles, layouts, strict=True)]


def _smolvlm(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Every tile is a run of its own; without tile layouts every run is an image."""
    rows, cols = (side // config.scale_factor for side in _patch_grid(config.vision_config))
    tiles = _split(runs, rows * cols, "tokens a tile")
    layouts = images.tiles or [(1, 1)] * (images.count or len(tiles))
    sizes = [down * across + (down * across > 1) for down, across in layouts]
    if sum(sizes) != len(tiles):
        raise InputError(f"{len(tiles)} tiles in the prompt do not fit {len(layouts)} images: pass token_map=")
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    parts = [tiles[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return [_tiled(mine, rows, cols, layout) for mine, layout in zip(parts, layouts, strict=True)]


def _tiled(parts: Sequence[Tensor], rows: int, cols: int, layout: tuple[int, int] | None) -> list[Grid]:
    """An image's tiles, row by row, and its thumbnail; where the layout is unknown, each as if it showed everything."""
    down, across = layout or (1, 1)
    frames = [(x / across, y / down, (x + 1) / across, (y + 1) / down) for y in range(down) for x in range(across)] + [
        FULL_FRAME
    ]
    if layout and len(parts) != len(frames) - (len(frames) == 2):
        raise InputError(f"{len(parts)} tiles in the prompt do not fit an image cut into {down} x {across}")
    shown = frames if layout else [FULL_FRAME] * len(parts)
    return [Grid(rows, cols, at, frame) for at, frame in zip(parts, shown, strict=False)]


def _qwen_vl(runs: list[Tensor], config: Any, images: ImageInfo) -> list[list[Grid]]:
    """Start and end tokens part the images; the grid is the patch grid after spatial merging."""
    if images.grid_thw is None or len(images.grid_thw) != len(runs):
        raise InputError(
            f"{len(runs)} images in the prompt need as many rows of image_grid_thw: pass it, or token_map="
        )
    merge = config.vision_config.spatial_merge_size
    grids = []
    for at, (time, height, width) in zip(runs, images.grid_thw, strict=True):
        rows, cols = height // merge, width // merge
        if len(at) != time * rows * cols:
            raise InputError(f"a run of {len(at)} visual tokens does not fit its grid {time} x {rows} x {cols}")
        grids.append([Grid(rows, cols, frame_at) for frame_at in at.split(rows * cols)])
    return grids


_FAMILIES: dict[str, Callable[[list[Tensor], Any, ImageInfo], list[list[Grid]]]] = {
    "llava": _llava,
    "llava_onevision": _llava_onevision,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "idefics3": _smolvlm,
    "qwen2_vl": _qwen_vl,
    "qwen2_5_vl": _qwen_vl,
    "qwen3_vl": _qwen_vl,
}
