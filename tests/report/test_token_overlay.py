"""Pictures of kept tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prune2drive.report.token_overlay import camera_sheet, draw_kept
from prune2drive.token_map import TokenMap, View

GREY = (120, 140, 160)


def boxes(rows=4, cols=4, frame=(0.0, 0.0, 1.0, 1.0)):
    view = View("CAM_FRONT", rows, cols, frame)
    return TokenMap.from_grids([(view, torch.arange(rows * cols))], rows * cols).boxes("CAM_FRONT")


def centres(drawn, rows=4, cols=4):
    """The colour in the middle of each cell; [rows, cols, 3]."""
    height, width = drawn.height // rows, drawn.width // cols
    return np.asarray(drawn)[height // 2 :: height, width // 2 :: width].astype(int)


@given(st.sets(st.integers(0, 15)))
def test_kept_tokens_are_clear_and_the_rest_is_dim(kept):
    photo = Image.new("RGB", (80, 40), GREY)
    drawn = draw_kept(photo, boxes(), torch.tensor(sorted(kept), dtype=torch.long))
    for index, colour in enumerate(centres(drawn).reshape(16, 3)):
        assert (tuple(colour) == GREY) if index in kept else (0 < colour.max() < 100)
    assert photo.getcolors() == [(3200, GREY)]


def test_a_thin_outline_around_what_is_kept():
    drawn = np.asarray(draw_kept(Image.new("RGB", (80, 40), GREY), boxes(), torch.tensor([5, 6])))
    outline = drawn[10, 20]
    assert tuple(outline) != GREY and outline.max() > 200
    assert (drawn[10, 20:60] == outline).all() and (drawn[19, 20:60] == outline).all()
    assert tuple(drawn[15, 40]) == GREY, "no line between neighbours"
    assert (drawn == outline).all(axis=2).sum() == 2 * 40 + 2 * 8


def test_padding_is_not_drawn():
    photo = Image.new("RGB", (80, 40), GREY)
    padded = boxes(8, 4, (0.0, -0.5, 1.0, 1.5))  # rows 0, 1, 6 and 7 lie outside the photo
    outside = draw_kept(photo, padded, torch.tensor([0, 3, 4, 27, 31]))
    assert np.array_equal(np.asarray(outside), np.asarray(draw_kept(photo, padded, torch.tensor([], dtype=torch.long))))
    inside = centres(draw_kept(photo, padded, torch.tensor([8])))
    assert [tuple(colour) == GREY for colour in inside[:, 0]] == [True, False, False, False]


COLOURS = {
    "CAM_FRONT": (200, 0, 0),
    "CAM_FRONT_LEFT": (0, 200, 0),
    "CAM_FRONT_RIGHT": (0, 0, 200),
    "CAM_BACK": (200, 200, 0),
    "CAM_BACK_LEFT": (200, 0, 200),
    "CAM_BACK_RIGHT": (0, 200, 200),
    "CAM_ROOF": (90, 90, 200),
}


@pytest.mark.parametrize(
    ("cameras", "laid_out"),
    [
        (
            list(COLOURS)[:6],
            [["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"], ["CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT"]],
        ),
        (["CAM_ROOF", "CAM_BACK", "CAM_FRONT"], [["CAM_FRONT", "CAM_BACK", "CAM_ROOF"]]),
        (["CAM_BACK"], [["CAM_BACK"]]),
    ],
)
def test_sheet_shows_the_cameras_around_the_car(cameras, laid_out):
    everything = torch.arange(16)
    views = {name: (Image.new("RGB", (160, 90), COLOURS[name]), boxes(), everything) for name in cameras}
    sheet = camera_sheet(views, "title")
    where = {}
    for name in cameras:
        ys, xs = (np.asarray(sheet) == COLOURS[name]).all(axis=2).nonzero()
        assert len(ys) > 0.9 * len(np.unique(ys)) * len(np.unique(xs)), "a full rectangle"
        where[name] = (ys.mean(), xs.mean())
    rows = sorted({y for y, _ in where.values()})
    found = [sorted((name for name in cameras if where[name][0] == y), key=lambda name: where[name][1]) for y in rows]
    assert found == laid_out


def test_sheet_tells_counts(monkeypatch):
    from PIL import ImageDraw

    written = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, at, text, *more, **options: written.append(text))
    camera_sheet({"CAM_X": (Image.new("RGB", (16, 9)), boxes(), torch.tensor([1, 2, 3]))}, "a\ntitle")
    assert written == ["a title", "CAM_X", "3 of 16 tokens"]
