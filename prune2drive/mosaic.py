"""Divides the pixels and tokens of one picture between the several cameras that it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from PIL import Image
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.token_map import TokenMap, View

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mosaic:
    """Cameras in equal cells of one picture, such as the six stitched views of DriveLMM-o1.

    Args:
        rows: rows of camera names, from the top left.

    Raises:
        InputError: there is no camera, one is named twice, or rows differ in length.
    """

    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(map(tuple, self.rows)))
        if not self.cameras or len({len(row) for row in self.rows}) > 1 or len(set(self.cameras)) < len(self.cameras):
            raise InputError(
                f"layout {[list(row) for row in self.rows]}: name each camera once, in rows of equal length"
            )

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Camera names from the top left, row by row."""
        return tuple(camera for row in self.rows for camera in row)

    @cached_property
    def cells(self) -> dict[str, Rectangle]:
        """Camera -> rectangle (x0, y0, x1, y1) in units of the picture's width and height."""
        height, width = 1 / len(self.rows), 1 / len(self.rows[0])
        return {
            camera: (x * width, y * height, (x + 1) * width, (y + 1) * height)
            for y, row in enumerate(self.rows)
            for x, camera in enumerate(row)
        }

    def pixels(self, size: tuple[int, int]) -> dict[str, tuple[int, int, int, int]]:
        """Returns camera -> pixel rectangle (x0, y0, x1, y1) for a picture of (width, height) `size`."""
        width, height = size
        return {
            camera: (round(x0 * width), round(y0 * height), round(x1 * width), round(y1 * height))
            for camera, (x0, y0, x1, y1) in self.cells.items()
        }

    def crop(self, picture: Image.Image) -> Mapping[str, Image.Image]:
        """Returns the cameras' images, cropped on access; every pixel belongs to exactly one camera."""
        return _Crops(self, picture)

    def stitch(self, images: Mapping[str, Image.Image]) -> Image.Image:
        """Stitches the cameras' images into one picture, the reverse of `crop`.

        An image that does not fit its row and column is scaled.

        Raises:
            InputError: a camera has no image.
        """
        if missing := [camera for camera in self.cameras if camera not in images]:
            raise InputError(f"no image of {missing[0]} to stitch; there are {', '.join(images)}")
        left = [0, *accumulate(images[camera].width for camera in self.rows[0])]
        top = [0, *accumulate(images[row[0]].height for row in self.rows)]
        picture = Image.new("RGB", (left[-1], top[-1]))
        for y, row in enumerate(self.rows):
            for x, camera in enumerate(row):
                size = (left[x + 1] - left[x], top[y + 1] - top[y])
                image = images[camera]
                picture.paste(image if image.size == size else image.resize(size), (left[x], top[y]))
        return picture

    def divide(self, token_map: TokenMap) -> TokenMap:
        """Assigns the picture's tokens to the cameras at their centres, and tokens of padding to the nearest camera.

        Args:
            token_map: map of a prompt that shows the picture, whose views may be tiles and thumbnails.

        Raises:
            InputError: the grids are so coarse that a camera has no token.
        """
        parts: dict[str, list[tuple[View, Tensor]]] = {camera: [] for camera in self.cameras}
        for index, view in enumerate(token_map.views):
            here = (token_map.view_P == index).nonzero().flatten()
            grid = torch.empty(view.rows, view.cols, dtype=torch.long)
            grid[token_map.row_P[here], token_map.col_P[here]] = here
            x0, y0, x1, y1 = view.frame
            down, across = (y1 - y0) / view.rows, (x1 - x0) / view.cols
            row_of = _cell_of(y0, down, view.rows, len(self.rows))
            col_of = _cell_of(x0, across, view.cols, len(self.rows[0]))
            for y, row in enumerate(self.rows):
                for x, camera in enumerate(row):
                    mine_y, mine_x = (row_of == y).nonzero().flatten(), (col_of == x).nonzero().flatten()
                    if not len(mine_y) or not len(mine_x):
                        continue
                    top, left = y0 + down * int(mine_y[0]), x0 + across * int(mine_x[0])
                    shown = (left, top, left + across * len(mine_x), top + down * len(mine_y))
                    part = View(camera, len(mine_y), len(mine_x), _within(shown, self.cells[camera]))
                    parts[camera].append((part, grid[mine_y][:, mine_x].flatten()))
        if blind := [camera for camera, found in parts.items() if not found]:
            raise InputError(f"{blind[0]}: the picture's tokens are too coarse to show it; use more tiles")
        return TokenMap.from_grids([part for found in parts.values() for part in found], token_map.length)


@dataclass(frozen=True)
class _Crops(Mapping[str, Image.Image]):
    """Camera -> image, cropped from a picture on access."""

    mosaic: Mosaic
    picture: Image.Image

    def __getitem__(self, camera: str) -> Image.Image:
        return self.picture.crop(self.mosaic.pixels(self.picture.size)[camera])

    def __iter__(self) -> Iterator[str]:
        return iter(self.mosaic.cameras)

    def __len__(self) -> int:
        return len(self.mosaic.cameras)


def _cell_of(start: float, step: float, count: int, cells: int) -> Tensor:
    """Returns the cell, out of `cells` along one axis, of the centres of `count` tokens."""
    centres = start + step * (torch.arange(count, dtype=torch.float64) + 0.5)
    return (centres * cells).floor().clamp(0, cells - 1).long()


def _within(shown: Rectangle, cell: Rectangle) -> Rectangle:
    """Converts a rectangle of the picture into units of a cell."""
    width, height = cell[2] - cell[0], cell[3] - cell[1]
    x0, x1 = ((x - cell[0]) / width for x in (shown[0], shown[2]))
    y0, y1 = ((y - cell[1]) / height for y in (shown[1], shown[3]))
    return (x0, y0, x1, y1)
