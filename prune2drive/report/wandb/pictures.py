"""Draws the cameras of a question for W&B, which shows and hides each camera's kept and dropped tokens on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import wandb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from prune2drive.cameras import arranged
from prune2drive.sample import Prediction, unpack_indices

WIDTH, GAP = 360, 4  # pixels: a camera's width, the space between
LABELS = {0: "another camera", 1: "kept", 2: "dropped"}

View = tuple[Image.Image, Tensor]
"""A camera's photo, and the rectangles (x0, y0, x1, y1) of its tokens in units of the photo; float [N, 4]."""


def masked_image(row: Prediction, views: Mapping[str, View], method: str) -> Any:
    """Returns one W&B image of all cameras, with a mask for each that says which of its tokens are kept.

    Args:
        row: the answered question.
        views: camera -> photo and tokens.
        method: the pruner's name.
    """
    cameras, columns = arranged(views)
    photos = [_scaled(views[camera][0]) for camera in cameras]
    height = max(photo.height for photo in photos)
    lines = math.ceil(len(cameras) / columns)
    sheet = Image.new("RGB", (columns * (WIDTH + GAP) - GAP, lines * (height + GAP) - GAP))
    masks = {}
    for index, (camera, photo) in enumerate(zip(cameras, photos, strict=True)):
        x, y = index % columns * (WIDTH + GAP), index // columns * (height + GAP)
        sheet.paste(photo, (x, y))
        ImageDraw.Draw(sheet).text(
            (x + 6, y + 4), camera, "white", ImageFont.load_default(14), stroke_width=2, stroke_fill="black"
        )
        mask = np.zeros((sheet.height, sheet.width), dtype=np.uint8)
        kept = unpack_indices(row.kept[camera])
        mask[y : y + photo.height, x : x + WIDTH] = _mask(views[camera][1], kept, *photo.size)
        masks[f"{camera} {method}"] = {"mask_data": mask, "class_labels": LABELS}
    return wandb.Image(sheet, caption=f"{row.question} -> {row.answer}", masks=masks, file_type="jpg")


def _scaled(photo: Image.Image) -> Image.Image:
    return photo.convert("RGB").resize((WIDTH, max(1, round(photo.height * WIDTH / photo.width))))


def _mask(boxes: Tensor, kept: Tensor, width: int, height: int) -> NDArray[np.uint8]:
    """Returns 1 where a pixel lies in a kept token, 2 where it lies in a dropped one, else 0; [height, width]."""
    mask = np.zeros((height, width), dtype=np.uint8)
    values = np.full(len(boxes), 2)
    values[kept] = 1
    corners = (boxes.clamp(0, 1).numpy() * [width, height, width, height]).round().astype(int)
    for (x0, y0, x1, y1), value in zip(corners, values, strict=True):
        mask[y0:y1, x0:x1] = value
    return mask
