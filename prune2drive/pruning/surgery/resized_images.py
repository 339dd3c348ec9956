"""Shows a vision tower smaller images, each token of which is copied to all places that it stands for.

Shape suffixes: I images, T positions of the tower (class token included), H and W pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from prune2drive.pruning.surgery.patch import override_method

Shape = tuple[int, int]
"""Rows and columns of an image's tokens."""


def resize_images(tower: Any, shapes_of: Callable[[int, int], Sequence[Shape]], undo: ExitStack) -> None:
    """Lets a vision tower see smaller images, until `undo` closes.

    Args:
        tower: a tower that takes images of any size if it is told to interpolate its position embeddings.
        shapes_of: gives, from the number of images and of the tokens of each, the rows and columns of tokens that each
            shall have.
    """
    override_method(undo, tower, "forward", partial(_forward, tower.config.patch_size, shapes_of))


def _forward(
    patch: int,
    shapes_of: Callable[[int, int], Sequence[Shape]],
    original: Any,
    pixel_values: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Any:
    count, _, height, width = pixel_values.shape
    full = height // patch, width // patch
    of_shape: dict[Shape, list[int]] = defaultdict(list)
    for image, shape in enumerate(shapes_of(count, full[0] * full[1])):
        of_shape[shape].append(image)
    layers: list[list[Tensor | None]] = []  # hidden states that nobody wants are None
    for shape, images in of_shape.items():
        small = _smaller(pixel_values[images], (shape[0] * patch, shape[1] * patch))
        found = original(small, *args, **kwargs, interpolate_pos_encoding=True)
        states = (found.last_hidden_state, *(found.hidden_states or ()))
        layers.append([None if part is None else _spread(part, shape, full) for part in states])
    order = torch.tensor([image for images in of_shape.values() for image in images]).argsort()
    last, *hidden = (_joined(parts, order) for parts in zip(*layers, strict=True))
    return type(found)(last_hidden_state=last, hidden_states=tuple(hidden) or None)


def _joined(parts: Sequence[Tensor | None], order: Tensor) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known)[order.to(known[0].device)] if known else None


def _smaller(pixels_I3HW: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(pixels_I3HW.float(), size, mode="bicubic", antialias=True).to(pixels_I3HW.dtype)


def _spread(states_ITD: Tensor, shape: Shape, full: Shape) -> Tensor:
    """Copies each token of a smaller image to all tokens of the full one whose middles lie on it."""
    rows, cols = shape
    class_tokens = states_ITD.shape[1] - rows * cols
    at_R, at_S = (
        ((2 * torch.arange(whole) + 1) * part).div(2 * whole, rounding_mode="floor")
        for part, whole in zip(shape, full, strict=True)
    )
    at_T = torch.cat([torch.arange(class_tokens), class_tokens + (at_R[:, None] * cols + at_S).flatten()])
    return states_ITD[:, at_T.to(states_ITD.device)]
