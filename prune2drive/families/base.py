"""The record that a family's file fills in, and the parts that several families lay out in the same way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.errors import InputError

Frame = tuple[float, float, float, float]
FULL_FRAME: Frame = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Grid:
    """A grid of visual tokens that shows an image or a part of it.

    Args:
        rows: its rows.
        cols: its columns.
        positions: prompt positions of its tokens, in raster order; [rows * cols].
        frame: the rectangle (x0, y0, x1, y1) of the image that it covers, in units of the image's width and height.
    """

    rows: int
    cols: int
    positions: Tensor
    frame: Frame = FULL_FRAME


@dataclass(frozen=True)
class ImageInfo:
    """What a prompt's placeholders do not tell about its images; for one prompt or a whole batch.

    Args:
        counts: number of images in each prompt.
        sizes: (height, width) of each image in pixels, prompt after prompt.
        grid_thw: (time, height, width) of each image in patches, for the Qwen families.
        tiles: (rows, columns) of the tiles that each image is cut into, for families that cut images.
    """

    counts: Sequence[int] | None = None
    sizes: Sequence[Sequence[int]] | None = None
    grid_thw: Sequence[Sequence[int]] | None = None
    tiles: Sequence[tuple[int, int]] | None = None

    @classmethod
    def of_call(cls, inputs: Mapping[str, Any]) -> ImageInfo:
        """Reads the arguments, by name, that a model or its vision encoder is called with."""
        values = (inputs.get(name) for name in ("batch_num_images", "image_sizes", "image_grid_thw"))
        return cls(*(value.tolist() if isinstance(value, Tensor) else value for value in values))

    @property
    def count(self) -> int | None:
        """Number of images in the first prompt, if known."""
        return self.counts[0] if self.counts else None

    def of_prompts(self, counts: Sequence[int]) -> list[ImageInfo]:
        """Splits the images of a batch between its prompts.

        Beams repeat each prompt in place, while the images are passed once.

        Args:
            counts: number of images in each prompt.
        """
        total = len(self.sizes or self.grid_thw or self.tiles or ())
        repeats = max(1, sum(counts) // total) if total and sum(counts) % total == 0 else 1
        parts, start = [], 0
        for row, count in enumerate(counts):
            stop = start + count
            fields: Any = [given and given[start:stop] for given in (self.sizes, self.grid_thw, self.tiles)]
            parts.append(ImageInfo([count], *fields))
            if (row + 1) % repeats == 0:
                start = stop
        return parts


@dataclass(frozen=True)
class Family:
    """What a family of vision-language models looks like inside.

    Args:
        model_types: `model_type` of its configs.
        grids: finds the visual tokens of one prompt, as one list of grids for each image. Its arguments are the runs
            of placeholder positions, the model's config and what is known of the prompt's images.
        vision_modules: attributes of the base model that turn pixels into visual tokens; none contains another.
        pixel_inputs: arguments of the model that hold pixels.
        tower_layers: path of the vision tower's layers in the base model; None where methods cannot read the
            attention of the tower, as windowed attention.
        takes_any_size: whether an image is one square grid of patches, a token each, and the vision tower takes images
            of other sizes by interpolating its position embeddings.
        patches_a_side: gives, from the config, how many patches a side of a visual token stands for.
    """

    model_types: tuple[str, ...]
    grids: Callable[[list[Tensor], Any, ImageInfo], list[list[Grid]]]
    vision_modules: tuple[str, ...] = ("vision_tower", "multi_modal_projector")
    pixel_inputs: tuple[str, ...] = ("pixel_values",)
    tower_layers: str | None = None
    takes_any_size: bool = False
    patches_a_side: Callable[[Any], int] = lambda config: 1

    def feature_layer(self, model: Any) -> nn.Module:
        """Returns the layer of the vision tower whose output becomes the visual tokens."""
        assert self.tower_layers is not None
        layers: Any = model.base_model.get_submodule(self.tower_layers)
        chosen = getattr(model.config, "vision_feature_layer", -1)
        # Counted in hidden states, of which there is one more than layers: -1 is what the last layer gives.
        layer: nn.Module = layers[chosen if chosen < 0 else chosen - 1]
        return layer


@dataclass(frozen=True)
class Decoder:
    """What a kind of language decoder looks like inside.

    Args:
        model_types: `model_type` of its configs.
        has_gated_mlp: whether its layers are grouped-query attention and one gated MLP.
        rope_axes: axes of its rotary positions: 1, or 3 (time, height, width) for multimodal rotary embeddings.
        adds_features: method by which it adds vision features to the states of its first layers (DeepStack, arXiv
            2406.04334), if it does.
        feature_inputs: arguments by which it is then given the visual positions [B, P], and a list with the features
            [V, D] of each of these layers.
    """

    model_types: tuple[str, ...]
    has_gated_mlp: bool = False
    rope_axes: int = 1
    adds_features: str | None = None
    feature_inputs: tuple[str, str] | None = None


def split_runs(runs: Sequence[Tensor], size: int, unit: str) -> list[Tensor]:
    """Cuts runs of visual tokens into images or tiles, of which adjacent ones share a run.

    Args:
        runs: consecutive prompt positions.
        size: tokens of one image or tile.
        unit: what `size` counts, for the message.

    Raises:
        InputError: the length of a run is no multiple of `size`.
    """
    for run in runs:
        if len(run) % size:
            raise InputError(f"a run of {len(run)} visual tokens is no multiple of {unit} = {size}")
    return [image for run in runs for image in torch.split(run, size)]


def height_width(value: int | Sequence[int]) -> tuple[int, int]:
    """Returns the height and width of a size that a config gives as one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def patch_grid(vision: Any) -> tuple[int, int]:
    """Returns the rows and columns of patches that a vision tower with this config sees in an image."""
    sizes = zip(height_width(vision.image_size), height_width(vision.patch_size), strict=True)
    rows, cols = (image // patch for image, patch in sizes)
    return rows, cols


def tile_grids(tiles: Sequence[Tensor], rows: int, cols: int, layout: tuple[int, int] | None) -> list[Grid]:
    """Places the tiles of one image, row by row, and its thumbnail, which comes last.

    Args:
        tiles: prompt positions of each tile's tokens.
        rows: rows of tokens in a tile.
        cols: columns of tokens in a tile.
        layout: (rows, columns) of tiles. Where it is unknown, each tile is placed as if it showed the whole image.

    Raises:
        InputError: another number of tiles than the layout has.
    """
    if layout is None:
        return [Grid(rows, cols, positions) for positions in tiles]
    down, across = layout
    frames = [(x / across, y / down, (x + 1) / across, (y + 1) / down) for y in range(down) for x in range(across)]
    if len(frames) > 1:
        frames.append(FULL_FRAME)
    if len(tiles) != len(frames):
        raise InputError(f"{len(tiles)} tiles in the prompt do not fit an image cut into {down} x {across}")
    return [Grid(rows, cols, positions, frame) for positions, frame in zip(tiles, frames, strict=True)]
