"""The shared vocabulary: a question about camera images, where its visual tokens lie, what was answered.

Shape suffixes: P positions of a prompt, N tokens of one camera.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor, nn

from prune2drive.errors import InputError

if TYPE_CHECKING:
    from prune2drive.mosaic import Mosaic

IMAGE_MARKER = "<image>"
Tally = tuple[str, str, str, int, int]
"""Objects of one camera, size and class: how many keep a token, and how many there are."""


@dataclass(frozen=True)
class ObjectBox:
    """An annotated object: pixel corners (x0, y0, x1, y1) in the camera's original image.

    Args:
        visibility: nuScenes' level, from 1 (up to 40 % of it is seen) to 4 (80 % and more), where it is known.
    """

    camera: str
    box: tuple[float, float, float, float]
    label: str = ""
    visibility: int | None = None


@dataclass(frozen=True)
class Sample:
    """One question about one frame.

    Args:
        id: unique within the dataset; predictions and references are paired by it.
        images: camera name -> RGB image, in the order in which the prompt shows them.
        question: the question alone.
        prompt: what the model is asked, with `<image>` where each camera's tokens go, or those of the mosaic.
        answer: the reference, or None where a file holds questions only.
        steps: the reasoning that leads to it, where the reference gives one.
        tags: DriveLM's scoring tags (0 accuracy, 1 judge, 2 language, 3 match).
        image_sizes: camera -> (width, height) in which `objects` are annotated.
        mosaic: shows the images as one picture, in the place of a single marker.
    """

    id: str
    images: Mapping[str, Image]
    question: str
    prompt: str
    answer: str | None = None
    steps: tuple[str, ...] = ()
    tags: tuple[int, ...] = ()
    scene: str = ""
    frame: str = ""
    objects: tuple[ObjectBox, ...] = ()
    image_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    mosaic: Mosaic | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.images)


@dataclass(frozen=True)
class View:
    """A grid of tokens that shows one camera, or a part of it.

    Args:
        frame: the rectangle (x0, y0, x1, y1) of the camera's image that the grid covers, in units of
            its width and height. It exceeds [0, 1] where the image was padded before encoding.
    """

    camera: str
    rows: int
    cols: int
    frame: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class TokenMap:
    """For every position of a prompt, the camera it shows and its place in that camera's grid.

    A camera is a set of positions, never an image index: separate images, one stitched image and
    tiles all reduce to it. Positions of no view (text, newlines, separators) are never candidates.

    Args:
        view_P: index into `views`, -1 for positions of no view.
        row_P: grid row within the view (-1 outside).
        col_P: grid column within the view (-1 outside).
    """

    views: tuple[View, ...]
    view_P: Tensor
    row_P: Tensor
    col_P: Tensor

    @property
    def length(self) -> int:
        return len(self.view_P)

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """Camera names in order of first appearance."""
        return tuple(dict.fromkeys(view.camera for view in self.views))

    @cached_property
    def _positions(self) -> dict[str, Tensor]:
        mine = {camera: [view.camera == camera for view in self.views] + [False] for camera in self.cameras}
        return {camera: torch.tensor(is_mine)[self.view_P].nonzero().flatten() for camera, is_mine in mine.items()}

    def positions(self, camera: str) -> Tensor:
        """Prompt positions of a camera's tokens, ascending; int64 [N]."""
        return self._positions[camera]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Visual tokens per camera."""
        return {camera: len(self.positions(camera)) for camera in self.cameras}

    def boxes(self, camera: str) -> Tensor:
        """Each token's rectangle (x0, y0, x1, y1) in units of the camera's image; float [N, 4], not to be changed."""
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

    def followed_by(self, text: int) -> TokenMap:
        """The map of the prompt with `text` more positions behind it."""
        parts = (nn.functional.pad(part_P, (0, text), value=-1) for part_P in (self.view_P, self.row_P, self.col_P))
        longer = TokenMap(self.views, *parts)
        known = {name: value for name, value in vars(self).items() if name not in vars(longer)}
        longer.__dict__.update(known)  # what was worked out of the visual tokens, which stay where they are
        return longer

    @classmethod
    def from_grids(cls, grids: Sequence[tuple[View, Tensor]], length: int) -> TokenMap:
        """A map from each view's prompt positions, given in raster order.

        Raises:
            InputError: positions outside the prompt, claimed twice, or not rows x cols of them.
        """
        view_P = torch.full((length,), -1)
        row_P, col_P = view_P.clone(), view_P.clone()
        for index, (view, at_N) in enumerate(grids):
            if len(at_N) != view.rows * view.cols or len(at_N) == 0:
                raise InputError(f"{view.camera}: {len(at_N)} tokens cannot fill a {view.rows} x {view.cols} grid")
            if int(at_N.min()) < 0 or int(at_N.max()) >= length:
                raise InputError(f"{view.camera}: visual tokens lie outside the prompt of {length} positions")
            if (view_P[at_N] >= 0).any() or len(at_N.unique()) < len(at_N):
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
        """A map from half-open spans, one a camera: `{"CAM_FRONT": (20, 749)}`.

        Args:
            spans: camera -> (start, stop) prompt positions of its tokens, in raster order.
            length: positions in the prompt.
            grids: camera -> (rows, cols). By default a square where the count is a square number,
                else one row.

        Raises:
            InputError: an empty, reversed, overlapping or out-of-range span, or a grid that does not fit.
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


@dataclass
class Prediction:
    """One row of predictions.jsonl: an answer and what it cost.

    Args:
        steps: the reasoning of the reference, where it gives one.
        kept: camera -> kept indices within the camera, packed by `pack_indices`.
        kept_counts: camera -> number of kept tokens.
        objects: the annotated ones, counted by camera, size and class (see `metrics/coverage.py`).
        stages: each cut as (decoder layer, visual tokens kept from there on).
        nominal: visual tokens that the keep ratios ask for.
        raw: visual tokens that the method's own rule would have kept, for methods without a budget.
        new_tokens: generated tokens, the end token included.
        flops: floating point operations of `vision` and `selection`.
        times: seconds of each phase, shared out evenly over the batch the sample was in.
        batch: names that batch (by its first sample): what was timed together.
        error: why the sample has no answer, with `on_error=skip`.
    """

    id: str
    question: str
    answer: str | None = None
    reference: str | None = None
    steps: tuple[str, ...] = ()
    tags: tuple[int, ...] = ()
    scene: str = ""
    frame: str = ""
    text_tokens: int = 0
    full_counts: dict[str, int] = field(default_factory=dict)
    kept_counts: dict[str, int] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    objects: list[Tally] = field(default_factory=list)
    stages: list[tuple[int, int]] = field(default_factory=list)
    nominal: int | None = None
    raw: int | None = None
    new_tokens: int = 0
    flops: dict[str, int] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    batch: str = ""
    error: str | None = None

    @classmethod
    def of(cls, sample: Sample, **found: Any) -> Prediction:
        """The row of a sample: what it asks, and what was found."""
        return cls(
            id=sample.id,
            question=sample.question,
            reference=sample.answer,
            steps=sample.steps,
            tags=sample.tags,
            scene=sample.scene,
            frame=sample.frame,
            **found,
        )

    def to_row(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        stages = [(layer, kept) for layer, kept in row.get("stages", ())]
        objects = [tuple(each) for each in row.get("objects", ())]
        lists = {name: tuple(row.get(name, ())) for name in ("steps", "tags")}
        return cls(**{**row, **lists, "stages": stages, "objects": objects})


def pack_indices(indices: Tensor, size: int) -> str:
    """A set of indices below `size` as a base64 bit mask, for one line of JSON."""
    mask = np.zeros(size, dtype=bool)
    mask[indices.cpu().numpy()] = True
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def unpack_indices(packed: str) -> Tensor:
    """The ascending indices that `pack_indices` was given."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(packed), dtype=np.uint8))
    return torch.from_numpy(bits.nonzero()[0])
