"""Makes MiniDrive's images look like photographs: texture, shadow, haze, and things in the foreground.

All arithmetic is on whole numbers, so that all machines give the same image.

Shape suffixes: H height and W width of the canvas, G cells of a coarse grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from prune2drive.cameras import CAMERAS
from prune2drive.minidrive.scene import Box, Scene
from prune2drive.minidrive.scene_random import SceneRandom

Levels = NDArray[np.int32]
"""Pixel values, or weights in 1/256."""

QUALITY, NOISE = 75, 11  # of the JPEG, and the largest change of a value by noise
_SHADE, _HAZE = 120, 130  # most that shadow takes away and that haze covers, in 1/256
_HIDDEN = 0.35  # largest share of an object's width behind a pole


def weather(pixels: Levels, scene: Scene, camera: str, sky: tuple[int, int, int]) -> Levels:
    """Adds texture, shadows and haze.

    Args:
        pixels: the drawn image, [H, W, 3].
        scene: the scene.
        camera: the camera whose image it is.
        sky: the colour of the sky, which haze takes on.

    Returns:
        The pixels, [H, W, 3].
    """
    rng = SceneRandom(*scene.key, CAMERAS.index(camera), 1)
    side = len(pixels)
    coarse, fine = (_noise(rng, cells, side) for cells in (6, 28))
    grain = 256 + (coarse - 128) * 90 // 256 + (fine - 128) * 110 // 256
    lit = grain * (256 - _shadows(scene, camera, side, rng)) // 256
    toned = np.clip(pixels * lit[..., None] // 256, 0, 255)
    haze = _haze(scene.horizon, side, rng.integer(_HAZE // 3, _HAZE))[:, None, None]
    return (toned * (256 - haze) + np.array(sky, dtype=np.int32) * haze) // 256


def foreground(scene: Scene, camera: str) -> list[Box]:
    """Returns poles close to the camera, none of which hides much of an object, as boxes."""
    rng = SceneRandom(*scene.key, CAMERAS.index(camera), 2)
    objects = [obj.box for obj in scene.objects if obj.camera == camera]
    poles: list[Box] = []
    for _ in range(rng.integer(0, 3)):
        width = rng.uniform(0.012, 0.03)
        left = rng.uniform(0, 1 - width)
        hidden = [min(left + width, x1) - max(left, x0) for x0, _, x1, _ in objects]
        if all(part <= _HIDDEN * (box[2] - box[0]) for part, box in zip(hidden, objects, strict=True)):
            poles.append((left, 0.0, left + width, rng.uniform(0.8, 1.0)))
    return poles


def _noise(rng: SceneRandom, cells: int, side: int) -> Levels:
    """Returns smooth noise between 0 and 255; [H, W]."""
    drawn = [rng.integer(0, 255) for _ in range(cells * cells)]
    small = Image.fromarray(np.array(drawn, dtype=np.uint8).reshape(cells, cells))
    return np.asarray(small.resize((side, side), Image.Resampling.BILINEAR)).astype(np.int32)


def _shadows(scene: Scene, camera: str, side: int, rng: SceneRandom) -> Levels:
    """Returns how much darker each pixel is, in 1/256: under objects, and in a band across the road; [H, W]."""
    mask = Image.new("L", (side // 4, side // 4))
    draw, size = ImageDraw.Draw(mask), side // 4
    for obj in scene.objects:
        if obj.camera == camera and obj.kind != "light":
            x0, y0, x1, y1 = obj.box
            high = (y1 - y0) * 0.16
            ellipse = (x0 - 0.02, y1 - high, x1 + 0.05, y1 + high)
            draw.ellipse([round(edge * size) for edge in ellipse], _SHADE)
    if rng.chance(0.6):
        top, tilt = rng.uniform(scene.horizon + 0.1, 0.85), rng.uniform(-0.1, 0.1)
        band = ((0, top), (1, top + tilt), (1, top + tilt + 0.12), (0, top + 0.12))
        draw.polygon([(round(x * size), round(y * size)) for x, y in band], _SHADE * 2 // 3)
    return np.asarray(mask.resize((side, side), Image.Resampling.BILINEAR)).astype(np.int32)


def _haze(horizon: float, side: int, most: int) -> Levels:
    """Returns how much of each row haze covers, in 1/256: most at the horizon, none close to the camera; [H]."""
    rows = np.arange(side, dtype=np.int32)
    line = round(horizon * side)
    depth = np.where(rows < line, 256 - (line - rows) * 128 // max(1, line), 256 - (rows - line) * 256 // (side - line))
    return np.asarray(most * depth // 256, dtype=np.int32)
