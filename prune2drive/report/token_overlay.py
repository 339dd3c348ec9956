"""Pictures of what was kept: the camera's photo, clear where tokens survive and dimmed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

MOSAIC = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT")
OUTLINE = (255, 190, 60)
PAPER, INK, FAINT = (24, 26, 30), (238, 238, 238), (160, 164, 172)
WIDTH, GAP, LABEL, TITLE = 480, 8, 26, 34  # pixels: a camera's width, the space between, the text lines


def draw_kept(image: Image.Image, boxes: Tensor, kept: Tensor) -> Image.Image:
    """The photo with kept tokens clear inside a thin outline, and everything else dimmed.

    Args:
        image: RGB photo.
        boxes: each token's rectangle (x0, y0, x1, y1) in units of the photo's width and height; float
            [N, 4]. What exceeds [0, 1], where the photo was padded, is not drawn.
        kept: indices of kept tokens; [K].
    """
    photo = image.convert("RGB")
    clear = np.pad(_covered(boxes[kept], *photo.size), 1)
    inner = clear[:-2, 1:-1] & clear[2:, 1:-1] & clear[1:-1, :-2] & clear[1:-1, 2:]
    clear = clear[1:-1, 1:-1]
    dimmed = Image.blend(photo, photo.convert("L").convert("RGB"), alpha=0.4).point(lambda value: 0.4 * value)
    drawn = Image.composite(photo, dimmed, Image.fromarray(clear))
    drawn.paste(OUTLINE, mask=Image.fromarray(clear & ~inner))
    return drawn


def camera_sheet(views: Mapping[str, tuple[Image.Image, Tensor, Tensor]], title: str = "") -> Image.Image:
    """All cameras in one picture, each labelled with its name and how many of its tokens were kept.

    nuScenes cameras lie as around the car (front row from left to right, back row from right to left,
    as one sees them when turning around); others follow in the given order.

    Args:
        views: camera -> (RGB photo, boxes [N, 4], kept [K]), as `draw_kept` takes them.
        title: a line above.
    """
    cameras = [camera for camera in MOSAIC if camera in views] + [camera for camera in views if camera not in MOSAIC]
    columns = len(cameras) if len(cameras) <= 3 else math.ceil(math.sqrt(len(cameras)))
    drawn = [_scaled(*views[camera]) for camera in cameras]
    rows = [drawn[start : start + columns] for start in range(0, len(drawn), columns)]
    heights = [LABEL + max(image.height for image in row) + GAP for row in rows]
    top = TITLE if title else GAP
    sheet = Image.new("RGB", (GAP + columns * (WIDTH + GAP), top + sum(heights)), PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(16), ImageFont.load_default(14)
    pen.text((GAP, TITLE / 2), " ".join(title.split()), INK, large, anchor="lm")
    for index, (camera, image) in enumerate(zip(cameras, drawn, strict=True)):
        row, column = divmod(index, columns)
        x, y = GAP + column * (WIDTH + GAP), top + sum(heights[:row])
        _, boxes, kept = views[camera]
        pen.text((x, y + LABEL / 2), camera, INK, small, anchor="lm")
        pen.text((x + WIDTH, y + LABEL / 2), f"{len(kept)} of {len(boxes)} tokens", FAINT, small, anchor="rm")
        sheet.paste(image, (x, y + LABEL))
    return sheet


def _scaled(image: Image.Image, boxes: Tensor, kept: Tensor) -> Image.Image:
    """`draw_kept` at the sheet's size, so that outlines stay one pixel wide."""
    size = (WIDTH, max(1, round(image.height * WIDTH / image.width)))
    return draw_kept(image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0), boxes, kept)


def _covered(boxes: Tensor, width: int, height: int) -> NDArray[np.bool_]:
    """Which pixels lie in any box; a box within the image covers at least one. Bool [height, width]."""
    corners = (boxes.detach().cpu().float() * torch.tensor([width, height, width, height])).round().long()
    corners[:, 2:] = corners[:, 2:].maximum(corners[:, :2] + 1)
    covered = np.zeros((height, width), dtype=bool)
    for x0, y0, x1, y1 in corners.clamp(min=0).tolist():
        covered[y0:y1, x0:x1] = True
    return covered
