"""Resize: shows the vision tower a smaller image, which makes as many tokens as a method may keep."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.families import known_families
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context


@dataclass
class Resize(Pruner):
    """Makes the tokens of a smaller image, the control that every method of dropping tokens has to beat.

    Two studies of 2026 (VTC-Bench; arXiv 2610.04318) find that it beats published methods. Each camera's image is made
    as small as its budget says, and the position embeddings of the vision tower are interpolated. Its tokens fill as
    many whole rows as fit the budget, so that a few tokens of it may be left over: 8 x 9 of 73. The image is made
    smaller after the processor has brought it to the model's size.
    """

    layer: int = 0

    traits = Traits(
        scopes=("per_camera",), positions="renumber", nested=False, shares_picks_per_frame=True, resizes_images=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer != 0:
            raise InputError(f"Resize: layer={self.layer}: a smaller image has fewer tokens from the start; use 0")

    def unsupported_reason(self, config: Any) -> str:
        families = [name for name, family in known_families().items() if family.takes_any_size]
        if config.model_type in families:
            return ""
        return (
            f"the images of {config.model_type} models cannot be made smaller here, only those of {', '.join(families)}"
        )

    def sizes(self, k: int, count: int) -> list[int]:
        rows, cols = self.image_shape(k, count)
        return [rows * cols]

    def image_shape(self, k: int, count: int) -> tuple[int, int]:
        """Returns the rows and columns of the smaller image's tokens: at most k, as square as they can be.

        Args:
            k: budget of a camera, at most `count`.
            count: number of tokens of its image.

        Raises:
            InputError: the image is no square, so that it was cut into tiles or unpadded.
        """
        side = isqrt(count)
        if side**2 != count:
            raise InputError(
                f"Resize: an image of {count} tokens is no square of patches; show several images, untiled"
            )
        rows = min(isqrt(k), side)
        return rows, min(k // rows, side)

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        """Keeps, for each token of the smaller image, the one at its middle among those that it was copied to."""
        pools, count, _ = tokens_CND.shape
        side = isqrt(count)
        at_R, at_S = (_middles(number, side) for number in self.image_shape(k, count))
        picks_K = (at_R[:, None] * side + at_S).flatten()
        return picks_K.to(tokens_CND.device).expand(pools, -1)


def _middles(number: int, side: int) -> Tensor:
    """Returns the cells of a side at the middles of `number` equal parts of it."""
    return ((2 * torch.arange(number) + 1) * side).div(2 * number, rounding_mode="floor")
