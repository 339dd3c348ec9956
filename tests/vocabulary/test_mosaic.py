import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prune2drive.errors import InputError
from prune2drive.mosaic import Mosaic
from prune2drive.token_map import TokenMap, View

SIX = Mosaic([["FL", "F", "FR"], ["BR", "B", "BL"]])


def noise(width, height):
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@given(st.integers(3, 50), st.integers(2, 50))
def test_stitching_undoes_cropping(width, height):
    picture = noise(width, height)
    assert SIX.stitch(SIX.crop(picture)).tobytes() == picture.tobytes()


def test_cameras_lie_in_their_cells():
    images = {camera: Image.new("RGB", (8, 5), (index, 0, 0)) for index, camera in enumerate(reversed(SIX.cameras))}
    picture = SIX.stitch(images)
    assert picture.size == (24, 10)
    for camera, (x0, y0, x1, y1) in SIX.cells.items():
        middle = int((x0 + x1) / 2 * 24), int((y0 + y1) / 2 * 10)
        assert picture.getpixel(middle) == images[camera].getpixel((0, 0))


def test_an_image_of_another_size_is_scaled():
    images = {camera: Image.new("RGB", (8, 5)) for camera in SIX.cameras} | {"B": Image.new("RGB", (16, 9))}
    assert SIX.stitch(images).size == (24, 10)


def test_a_missing_image():
    with pytest.raises(InputError, match="no image of BL to stitch"):
        SIX.stitch({camera: Image.new("RGB", (8, 5)) for camera in SIX.cameras[:-1]})


@pytest.mark.parametrize("rows", [[], [[]], [["F", "B"], ["L"]], [["F", "F"]]])
def test_impossible_layouts(rows):
    with pytest.raises(InputError, match="name each camera once"):
        Mosaic(rows)


def whole(rows, cols, frame=(0.0, 0.0, 1.0, 1.0), text=3):
    view = View("picture", rows, cols, frame)
    return TokenMap.from_grids([(view, torch.arange(text, text + rows * cols))], 2 * text + rows * cols)


@given(st.integers(2, 20), st.integers(3, 20), st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)))
def test_every_token_goes_to_the_camera_at_its_centre(rows, cols, padding):
    """Against each token's own place in the picture; padding beyond the edge goes to the nearest."""
    frame = (-padding[0], -padding[1], 1 + padding[0], 1 + padding[1])
    before = whole(rows, cols, frame)
    try:
        after = SIX.divide(before)
    except InputError:
        return
    assert sum(after.counts.values()) == rows * cols and after.length == before.length
    boxes = dict(zip(before.positions("picture").tolist(), before.boxes("picture"), strict=True))
    for camera in SIX.cameras:
        x0, y0, x1, y1 = SIX.cells[camera]
        for position, box in zip(after.positions(camera).tolist(), after.boxes(camera), strict=True):
            shown = boxes[position]
            centre = ((shown[:2] + shown[2:]) / 2).clamp(1e-6, 1 - 1e-6)
            assert x0 - 1e-5 <= centre[0] <= x1 + 1e-5 and y0 - 1e-5 <= centre[1] <= y1 + 1e-5
            back = box * torch.tensor([x1 - x0, y1 - y0] * 2) + torch.tensor([x0, y0] * 2)
            assert torch.allclose(back, shown, atol=1e-5)


def test_tiles_and_thumbnail():
    """Three tiles side by side do not line up with two rows of cameras; the thumbnail shows all of them."""
    third = 1 / 3
    frames: list[tuple[float, float, float, float]] = [
        (0, 0, third, 1),
        (third, 0, 2 * third, 1),
        (2 * third, 0, 1, 1),
        (0, 0, 1, 1),
    ]
    grids = [(View("picture", 16, 16, frame), torch.arange(256) + 256 * index) for index, frame in enumerate(frames)]
    divided = SIX.divide(TokenMap.from_grids(grids, 1024))
    # Of each camera: half of a tile, 8 x 16, and of the thumbnail 8 rows of 5 or (in the middle) 6 columns.
    assert divided.counts == {"FL": 168, "F": 176, "FR": 168, "BR": 168, "B": 176, "BL": 168}
    assert divided.cameras == SIX.cameras
    boxes = divided.boxes("B")
    assert boxes[:128].min() >= -1e-6 and boxes[:128].max() <= 1 + 1e-6
    assert boxes[:128, 3].max() == pytest.approx(1) and boxes[:128, 0].min() == pytest.approx(0, abs=1e-6)


def test_a_grid_too_coarse_for_a_camera():
    with pytest.raises(InputError, match="too coarse"):
        SIX.divide(whole(1, 6))
