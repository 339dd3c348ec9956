"""Draws which tokens were kept: the cameras' photos, clear where tokens survive and dimmed elsewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from prune2drive.cameras import arranged
from prune2drive.files import replace_atomically
from prune2drive.sample import Prediction, Sample
from prune2drive.token_map import TokenMap

OUTLINE = (255, 190, 60)
PAPER, INK, FAINT = (24, 26, 30), (238, 238, 238), (160, 164, 172)
WIDTH, GAP, LABEL, TITLE = 480, 8, 26, 34  # pixels: a camera's width, the space between, the text lines
COMPRESSION = 3  # of PNG files: a third of the time of Pillow's 6, for a file larger by a sixth
LONGEST_NAME = 200  # file systems allow 255 bytes


def save_picture(
    folder: Path, sample: Sample, images: Mapping[str, Image.Image], token_map: TokenMap, kept: Mapping[str, Tensor]
) -> Path:
    """Writes a sample's photos, with the kept tokens clear, into `pictures/` of a run folder; returns the file.

    Raises:
        InputError: the folder cannot be written.
    """
    views = {camera: (images[camera], token_map.boxes(camera), kept[camera]) for camera in kept}
    file = _picture_file(folder, sample.id)
    file.parent.mkdir(exist_ok=True)
    sheet = camera_sheet(views, sample.question)
    replace_atomically(file, partial(sheet.save, compress_level=COMPRESSION))
    return file


def saved_pictures(folder: Path, predictions: Iterable[Prediction]) -> list[tuple[Prediction, Path]]:
    """Returns the predictions of which a run folder holds a picture, with the picture's file; reads no more of them."""
    left = set((folder / "pictures").glob("*.png"))  # an id, and so a name, may begin with a dot
    found = []
    for prediction in predictions if left else ():
        if (file := _picture_file(folder, prediction.id)) in left:
            found.append((prediction, file))
            left.remove(file)
            if not left:
                break
    return found


def _picture_file(folder: Path, sample_id: str) -> Path:
    """Returns a valid file name for any id, even one with slashes or of great length."""
    name = quote(sample_id, safe="", errors="backslashreplace")
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return folder / "pictures" / f"{name}.png"


def draw_kept(image: Image.Image, boxes: Tensor, kept: Tensor) -> Image.Image:
    """Returns the photo with kept tokens clear inside a thin outline, and everything else dimmed.

    Args:
        image: RGB photo.
        boxes: the tokens' rectangles (x0, y0, x1, y1) in units of the photo's width and height; float [N, 4]. Parts
            outside [0, 1], where the photo was padded, are not drawn.
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
    """Returns one picture of all cameras, labelled with their names and how many of their tokens were kept.

    They lie as `cameras.arranged` says.

    Args:
        views: camera -> (RGB photo, boxes [N, 4], kept indices [K]), the arguments of `draw_kept`.
        title: a line above the cameras.
    """
    cameras, columns = arranged(views)
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
    """Scales a photo to the sheet's size, then draws on it, so that outlines are one pixel wide."""
    size = (WIDTH, max(1, round(image.height * WIDTH / image.width)))
    return draw_kept(image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0), boxes, kept)


def _covered(boxes: Tensor, width: int, height: int) -> NDArray[np.bool_]:
    """Returns which pixels lie in any box, bool [height, width]; a box within the image covers at least one."""
    corners = (boxes.detach().cpu().float() * torch.tensor([width, height, width, height])).round().long()
    corners[:, 2:] = corners[:, 2:].maximum(corners[:, :2] + 1)
    covered = np.zeros((height, width), dtype=bool)
    for x0, y0, x1, y1 in corners.clamp(min=0).tolist():
        covered[y0:y1, x0:x1] = True
    return covered
