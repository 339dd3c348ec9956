"""Maps the positions of a prompt to cameras, and to rows and columns of the cameras' grids.

Shape suffixes: P positions of a prompt, N tokens of one camera.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from prune2drive.errors import InputError


@dataclass(frozen=True)
class View:
    """A grid of tokens that shows a camera's image or a part of the image.

    Args:
        frame: the rectangle (x0, y0, x1, y1) that the grid covers, in units of the image's width and height; it
            exceeds [0, 1] where the image was padded.
    """

    camera: str
    rows: int
    cols: int
    frame: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class TokenMap:
    """The camera, grid row and grid column of every position of a prompt.

    A camera is a set of positions, not an image, so that separate images, a stitched image and tiles are handled in
    one way. Positions without a view (text, newlines, separators) are never pruned.

    Args:
        view_P: index into `views`, -1 for positions without a view.
        row_P: grid row, -1 for positions without a view.
        col_P: grid column, -1 for positions without a view.
    """

    views: tuple[View, ...]
    view_P: Tensor
    row_P: Tensor
    col_P: Tensor

    @property
    def length(self) -> int:
        return len(self.view_P)

    def of_length(self, length: int) -> TokenMap:
        """Returns the map of a prompt that begins in the same way and has more or less text behind its last image."""
        grown = length - self.length
        parts = (nn.functional.pad(part_P, (0, grown), value=-1) for part_P in (self.view_P, self.row_P, self.col_P))
        other = TokenMap(self.views, *parts)
        known = {name: value for name, value in vars(self).items() if name not in vars(other)}
        vars(other).update(known)  # positions and boxes of the visual tokens, which text behind them does not move
        return other

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in the order of `views`."""
        return tuple(dict.fromkeys(view.camera for view in self.views))

    @cached_property
    def _positions(self) -> dict[str, Tensor]:
        mine = {camera: [view.camera == camera for view in self.views] + [False] for camera in self.cameras}
        return {camera: torch.tensor(is_mine)[self.view_P].nonzero().flatten() for camera, is_mine in mine.items()}

    def positions(self, camera: str) -> Tensor:
        """Returns the prompt positions of a camera's tokens, ascending; int64 [N]."""
        return self._positions[camera]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Number of visual tokens of each camera."""
        return {camera: len(self.positions(camera)) for camera in self.cameras}

    def boxes(self, camera: str) -> Tensor:  # shared by all callers, which must not change it
        """Returns the rectangles (x0, y0, x1, y1) of a camera's tokens, in units of the image; float [N, 4]."""
        return self._boxes[camera]

    @cached_property
    def _boxes(self) -> dict[str, Tensor]:
        return {camera: self._rectangles(camera) for camera in self.cameras}

    def _rectangles(self, camera: str) -> Tensor:
        at_N = self.positions(camera)
        view_N = self.view_P[at_N]
        frame = torch.tensor([view.frame for view in self.views])[view_N]
        grid = torch.tensor([(view.cols, view.rows) for view in self.views])[view_N]
        cell = (frame[:, 2:] - frame[:, :2]) / grid
        corner = frame[:, :2] + cell * torch.stack([self.col_P[at_N], self.row_P[at_N]], dim=1)
        return torch.cat([corner, corner + cell], dim=1)

    @classmethod
    def from_grids(cls, grids: Sequence[tuple[View, Tensor]], length: int) -> TokenMap:
        """Builds the map of a prompt of `length` positions from views and their positions, in raster order.

        Raises:
            InputError: a position is outside the prompt or in two views, or a view has not rows x cols positions.
        """
        view_P = torch.full((length,), -1)
        row_P, col_P = view_P.clone(), view_P.clone()
        for index, (view, at_N) in enumerate(grids):
            if len(at_N) != view.rows * view.cols or len(at_N) == 0:
                raise InputError(f"{view.camera}: {len(at_N)} tokens cannot fill a {view.rows} x {view.cols} grid")
            if int(at_N.min()) < 0 or int(at_N.max()) >= length:
                raise InputError(f"{view.camera}: visual tokens lie outside the prompt of {length} positions")
            if (view_P[at_N] >= 0).any() or at_N.bincount().max() > 1:
                raise InputError(f"{view.camera}: its visual tokens overlap another camera's or each other")
            view_P[at_N] = index
            cell = torch.arange(len(at_N))
            row_P[at_N], col_P[at_N] = cell // view.cols, cell % view.cols
        return cls(tuple(view for view, _ in grids), view_P, row_P, col_P)

    @classmethod
    def from_spans(
        cls,
        spans: Mapping[str, tuple[int, int]],
        length: int,
        grids: Mapping[str, tuple[int, int]] | None = None,
    ) -> TokenMap:
        """Builds a map from one half-open span per camera, such as `{"CAM_FRONT": (20, 749)}`.

        Args:
            spans: camera -> [start, stop) of prompt positions, in raster order.
            length: number of positions in the prompt.
            grids: camera -> (rows, cols); by default a square, or one row where no square fits.

        Raises:
            InputError: a span is empty, reversed, overlapping or outside the prompt, or does not fit its grid.
        """
        views = []
        for camera, (start, stop) in spans.items():
            if not 0 <= start < stop <= length:
                raise InputError(
                    f"{camera}: span ({start}, {stop}) is not a half-open range within the prompt's {length} positions"
                )
            side = round((stop - start) ** 0.5)
            square = (side, side) if side * side == stop - start else (1, stop - start)
            rows, cols = (grids or {}).get(camera, square)
            views.append((View(camera, rows, cols), torch.arange(start, stop)))
        return cls.from_grids(views, length)
