"""Renders MiniDrive's scenes as JPEG images of any resolution.

Shapes are drawn at whole pixels of a canvas of twice the resolution, so that all machines give the same image.
Distractors have the objects' colours, so that colour or brightness alone does not identify an object.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from prune2drive.cameras import CAMERAS
from prune2drive.minidrive import photo
from prune2drive.minidrive.scene import Box, Scene, SceneObject
from prune2drive.minidrive.scene_random import SceneRandom
from prune2drive.minidrive.vocabulary import COLOURS, LIGHTS, VEHICLES

RGB = tuple[int, int, int]

SUPERSAMPLING = 2  # pixels of the canvas for one of the image, along a side
_NOISE = 7

_PAINT: dict[str, RGB] = {
    "red": (205, 30, 30),
    "blue": (35, 70, 215),
    "green": (25, 150, 55),
    "yellow": (235, 205, 30),
    "white": (240, 240, 240),
    "black": (22, 22, 26),
}
_SKIES: tuple[RGB, ...] = ((150, 185, 225), (185, 190, 200), (215, 180, 150), (95, 105, 135))
_ROADS: tuple[RGB, ...] = ((98, 98, 102), (82, 82, 86), (115, 112, 110))
_BULBS: tuple[RGB, ...] = ((255, 40, 40), (255, 220, 40), (50, 255, 90))
_DARK, _GLASS, _SKIN, _GREY = (25, 25, 28), (150, 190, 215), (225, 180, 150), (60, 60, 64)
_BRAKE, _BLINKER, _BODY = (255, 20, 20), (255, 165, 0), (48, 50, 58)
_VANISHING = dict(zip(CAMERAS, (0.5, 1.15, -0.15, 0.5, -0.15, 1.15), strict=True))  # x of the road's vanishing point
_EGO = {  # camera -> outline of the ego vehicle in its image
    "CAM_FRONT": ((0.18, 1.0), (0.26, 0.955), (0.74, 0.955), (0.82, 1.0)),
    "CAM_FRONT_LEFT": ((0.84, 1.0), (1.0, 0.86), (1.0, 1.0)),
    "CAM_FRONT_RIGHT": ((0.16, 1.0), (0.0, 0.86), (0.0, 1.0)),
    "CAM_BACK": ((0.0, 1.0), (0.0, 0.965), (1.0, 0.965), (1.0, 1.0)),
    "CAM_BACK_LEFT": ((0.84, 1.0), (1.0, 0.86), (1.0, 1.0)),
    "CAM_BACK_RIGHT": ((0.16, 1.0), (0.0, 0.86), (0.0, 1.0)),
}


def render(scene: Scene, camera: str, resolution: int) -> bytes:
    """Returns a camera's image of a scene as JPEG.

    Args:
        resolution: width and height in pixels.
    """
    at = CAMERAS.index(camera)
    rng = SceneRandom(*scene.key, at)
    canvas = Canvas(resolution * SUPERSAMPLING)
    _landscape(canvas, scene, camera, rng)
    _clutter(canvas, scene, camera, rng)
    for obj in sorted((obj for obj in scene.objects if obj.camera == camera), key=lambda obj: obj.box[3]):
        _draw(canvas, obj, rng)
    quality, most = (95, _NOISE)
    if scene.is_photo:
        quality, most = photo.QUALITY, photo.NOISE
        for pole in photo.foreground(scene, camera):
            canvas.rectangle(pole, _GREY)
    canvas.polygon(_EGO[camera], _BODY)
    pixels = np.asarray(canvas.image.reduce(SUPERSAMPLING)).astype(np.int32)
    if scene.is_photo:
        pixels = photo.weather(pixels, scene, camera, _sky_and_road(scene)[0])
    gain = int(rng.uniform(218, 282))  # brightness in 1/256
    size = pixels.size
    raw = np.random.PCG64(np.random.SeedSequence([*scene.key, at])).random_raw(size // 8 + 1)
    noise = raw.view(np.uint8)[:size].reshape(pixels.shape).astype(np.int32) * (2 * most + 1) // 256 - most
    noisy = np.clip(pixels * gain // 256 + noise, 0, 255).astype(np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(noisy).save(file, "JPEG", quality=quality, subsampling=0)
        return file.getvalue()


class Canvas:
    """Draws shapes given in fractions of the image's side, at whole pixels."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.image = Image.new("RGB", (side, side))
        self._draw = ImageDraw.Draw(self.image)

    def rectangle(self, box: Box, fill: RGB, outline: RGB | None = None) -> None:
        x0, y0, x1, y1 = self._pixels(box)
        self._draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), fill, outline)

    def ellipse(self, box: Box, fill: RGB | None = None, outline: RGB | None = None, width: float = 0) -> None:
        x0, y0, x1, y1 = self._pixels(box)
        self._draw.ellipse((x0, y0, max(x0, x1), max(y0, y1)), fill, outline, max(1, round(width * self.side)))

    def polygon(self, points: tuple[tuple[float, float], ...], fill: RGB, outline: RGB | None = None) -> None:
        self._draw.polygon([(round(x * self.side), round(y * self.side)) for x, y in points], fill, outline)

    def line(self, box: Box, fill: RGB, width: float) -> None:
        self._draw.line(self._pixels(box), fill, max(1, round(width * self.side)))

    def _pixels(self, box: Box) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = (round(edge * self.side) for edge in box)
        return x0, y0, x1, y1


def _jitter(colour: RGB, rng: SceneRandom, amount: int = 14) -> RGB:
    red, green, blue = (min(255, max(0, value + rng.integer(-amount, amount))) for value in colour)
    return red, green, blue


def _sky_and_road(scene: Scene) -> tuple[RGB, RGB]:
    """Returns the colours that all cameras share."""
    shared = SceneRandom(*scene.key, len(CAMERAS))
    return shared.pick(_SKIES), shared.pick(_ROADS)


def _landscape(canvas: Canvas, scene: Scene, camera: str, rng: SceneRandom) -> None:
    """Draws sky, skyline, verge and road."""
    (sky, road), horizon = _sky_and_road(scene), scene.horizon
    canvas.rectangle((0, 0, 1, horizon), sky)
    canvas.rectangle((0, horizon, 1, 1), _jitter((105, 118, 88), rng, 22))
    left = -rng.uniform(0, 0.13)
    while left < 1:
        right = left + rng.uniform(0.1, 0.28)
        if rng.chance(0.7):
            _building(canvas, (left, horizon * rng.uniform(0.25, 0.9), right, horizon), rng)
        else:
            top = horizon * rng.uniform(0.55, 0.85)
            canvas.ellipse((left, top, right, horizon + 0.02), _jitter((70, 105, 65), rng, 25))
        left = right
    middle = _VANISHING[camera] + (0.26 * scene.bend if camera == CAMERAS[0] else 0) + rng.uniform(-0.04, 0.04)
    wide = rng.uniform(0.9, 1.3)
    foot = (0.5 + wide, 1.0), (0.5 - wide, 1.0)
    canvas.polygon(((middle - 0.03, horizon), (middle + 0.03, horizon), *foot), _jitter(road, rng, 6))
    for lane in (-0.33, 0.33):
        for step in range(5):
            a, b = 0.1 + 0.2 * step, 0.19 + 0.2 * step
            xs = [middle + (0.5 + lane * wide - middle) * part for part in (a, b)]
            ys = [horizon + (1 - horizon) * part for part in (a, b)]
            canvas.line((xs[0], ys[0], xs[1], ys[1]), (205, 205, 200), 0.013)


def _building(canvas: Canvas, box: Box, rng: SceneRandom) -> None:
    left, top, right, bottom = box
    canvas.rectangle(box, _jitter((128, 122, 116), rng, 45))
    if not rng.chance(0.6):
        return
    window = _jitter((90, 100, 115), rng, 35)
    for row in range(int((bottom - top - 0.05) / 0.055)):
        for column in range(int((right - left - 0.03) / 0.05)):
            x, y = left + 0.02 + 0.05 * column, top + 0.025 + 0.055 * row
            canvas.rectangle((x, y, x + 0.018, y + 0.025), window)


def _clutter(canvas: Canvas, scene: Scene, camera: str, rng: SceneRandom) -> None:
    """Draws distractors in the objects' colours: hoardings, bushes, patches on the road and crates."""
    for _ in range(scene.clutter[camera]):
        paint = _jitter(_PAINT[rng.pick(COLOURS)], rng)
        x, size = rng.uniform(0, 0.9), rng.uniform(0.06, 0.17)
        ground = rng.uniform(scene.horizon + 0.06, 0.95)
        match rng.integer(0, 3):
            case 0:
                top = rng.uniform(0.03, scene.horizon - 0.08)
                canvas.rectangle((x + size * 0.45, top, x + size * 0.55, scene.horizon), _GREY)
                canvas.rectangle((x, top, x + size, top + size * 0.5), paint)
            case 1:
                canvas.ellipse((x, ground - size * 0.6, x + size, ground), paint)
            case 2:
                skew = rng.uniform(-0.04, 0.04)
                canvas.polygon(
                    ((x, ground), (x + size, ground), (x + size + skew, ground - 0.04), (x + skew, ground - 0.04)),
                    paint,
                )
            case _:
                canvas.rectangle((x, ground - size * 0.8, x + size * 0.8, ground), paint, _DARK)


def _draw(canvas: Canvas, obj: SceneObject, rng: SceneRandom) -> None:
    paint = _jitter(_PAINT[obj.colour], rng) if obj.colour else _DARK
    if obj.kind in VEHICLES:
        _vehicle(canvas, obj, paint)
    else:
        {"pedestrian": _pedestrian, "cyclist": _cyclist, "cone": _cone, "barrier": _barrier, "light": _light}[obj.kind](
            canvas, obj, paint
        )


def _inside(box: Box, x0: float, y0: float, x1: float, y1: float) -> Box:
    """Returns a box whose corners are fractions of another box's width and height."""
    left, top, right, bottom = box
    wide, high = right - left, bottom - top
    return left + x0 * wide, top + y0 * high, left + x1 * wide, top + y1 * high


def _points(box: Box, *points: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return tuple(_inside(box, x, y, x, y)[:2] for x, y in points)


def _vehicle(canvas: Canvas, obj: SceneObject, paint: RGB) -> None:
    box = obj.box
    if obj.kind == "car":
        canvas.polygon(_points(box, (0.16, 0.45), (0.3, 0), (0.7, 0), (0.84, 0.45)), paint, _DARK)
        canvas.polygon(_points(box, (0.28, 0.4), (0.36, 0.1), (0.64, 0.1), (0.72, 0.4)), _GLASS)
        canvas.rectangle(_inside(box, 0, 0.4, 1, 0.86), paint, _DARK)
    elif obj.kind == "truck":
        canvas.rectangle(_inside(box, 0, 0, 1, 0.7), paint, _DARK)
        canvas.line(_inside(box, 0.5, 0, 0.5, 0.7), _DARK, 0.01)
        canvas.rectangle(_inside(box, 0.04, 0.7, 0.96, 0.88), (95, 95, 100))
    else:
        canvas.rectangle(_inside(box, 0, 0, 1, 0.88), paint, _DARK)
        for window in range(4):
            x = 0.06 + 0.235 * window
            canvas.rectangle(_inside(box, x, 0.12, x + 0.17, 0.42), _GLASS)
    for x in (0.12, 0.68):
        canvas.ellipse(_inside(box, x, 0.76, x + 0.2, 1), _DARK)
    low, high = 0.6, 0.86
    canvas.rectangle(_inside(box, 0.02, low, 0.98, high), _GREY)
    lamps = {"Stopped": (_BRAKE, _BRAKE), "Turn left": (_BLINKER, None), "Turn right": (None, _BLINKER)}
    for lamp, x in zip(lamps.get(obj.status or "", (None, None)), (0.02, 0.7), strict=True):
        if lamp:
            canvas.rectangle(_inside(box, x, low, x + 0.28, high), lamp)


def _pedestrian(canvas: Canvas, obj: SceneObject, paint: RGB) -> None:
    box = obj.box
    canvas.ellipse(_inside(box, 0.2, 0, 0.8, 0.24), _SKIN)
    canvas.rectangle(_inside(box, 0, 0.24, 1, 0.66), paint, _DARK)
    for x in (0.1, 0.58):
        canvas.rectangle(_inside(box, x, 0.66, x + 0.32, 1), (50, 50, 70))


def _cyclist(canvas: Canvas, obj: SceneObject, paint: RGB) -> None:
    box = obj.box
    for x in (0, 0.55):
        canvas.ellipse(_inside(box, x, 0.58, x + 0.45, 1), None, _DARK, 0.014)
    canvas.line(_inside(box, 0.22, 0.8, 0.78, 0.8), _DARK, 0.01)
    canvas.rectangle(_inside(box, 0.28, 0.2, 0.72, 0.68), paint, _DARK)
    canvas.ellipse(_inside(box, 0.34, 0, 0.66, 0.24), _SKIN)


def _cone(canvas: Canvas, obj: SceneObject, paint: RGB) -> None:
    del paint
    canvas.polygon(_points(obj.box, (0.5, 0), (1, 1), (0, 1)), (255, 120, 10))
    canvas.rectangle(_inside(obj.box, 0.28, 0.5, 0.72, 0.68), (255, 255, 255))


def _barrier(canvas: Canvas, obj: SceneObject, paint: RGB) -> None:
    for stripe in range(6):
        fill = (220, 40, 40) if stripe % 2 else (250, 250, 250)
        canvas.rectangle(_inside(obj.box, stripe / 6, 0, (stripe + 1) / 6, 0.7), fill)
    for x in (0.1, 0.8):
        canvas.rectangle(_inside(obj.box, x, 0.7, x + 0.1, 1), paint)


def _light(canvas: Canvas, obj: SceneObject, paint: RGB) -> None:
    canvas.rectangle(obj.box, paint, (70, 70, 70))
    for place, (state, bulb) in enumerate(zip(LIGHTS, _BULBS, strict=True)):
        y = 0.05 + 0.31 * place
        canvas.ellipse(_inside(obj.box, 0.18, y, 0.82, y + 0.28), bulb if obj.status == state else (55, 55, 55))
