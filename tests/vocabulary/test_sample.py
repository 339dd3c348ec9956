import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.sample import Prediction, pack_indices, unpack_indices
from prune2drive.token_map import TokenMap, View

# TokenMap


def test_spans_of_cameras_with_text_between():
    token_map = TokenMap.from_spans({"CAM_BACK": (10, 19), "CAM_FRONT": (2, 8)}, 20)
    assert token_map.length == 20
    assert token_map.cameras == ("CAM_BACK", "CAM_FRONT")
    assert token_map.counts == {"CAM_BACK": 9, "CAM_FRONT": 6}
    assert token_map.positions("CAM_FRONT").tolist() == list(range(2, 8))
    assert [(view.rows, view.cols) for view in token_map.views] == [(3, 3), (1, 6)]  # a square where it can be
    assert token_map.row_P[10:19].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert token_map.col_P[10:19].tolist() == [0, 1, 2] * 3
    outside = [*range(2), *range(8, 10), 19]
    for part in (token_map.view_P, token_map.row_P, token_map.col_P):
        assert part[outside].tolist() == [-1] * len(outside)


def test_the_grid_of_a_span_can_be_told():
    token_map = TokenMap.from_spans({"A": (0, 6), "B": (6, 15)}, 15, grids={"A": (2, 3)})
    assert [(view.rows, view.cols) for view in token_map.views] == [(2, 3), (3, 3)]
    assert token_map.row_P[:6].tolist() == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("span", [(3, 3), (5, 3), (-1, 3), (3, 11)])
def test_bad_spans(span):
    with pytest.raises(InputError, match=r"CAM_FRONT: span .* 10 positions"):
        TokenMap.from_spans({"CAM_FRONT": span}, 10)


def test_spans_that_overlap_or_do_not_fill_their_grid():
    with pytest.raises(InputError, match="B: .*overlap"):
        TokenMap.from_spans({"A": (0, 5), "B": (4, 8)}, 10)
    with pytest.raises(InputError, match="A: 5 tokens cannot fill a 2 x 3 grid"):
        TokenMap.from_spans({"A": (0, 5)}, 10, grids={"A": (2, 3)})


@pytest.mark.parametrize("at", [[-1, 0], [9, 10], [3, 3]])
def test_positions_outside_the_prompt_or_twice(at):
    with pytest.raises(InputError):
        TokenMap.from_grids([(View("A", 1, 2), torch.tensor(at))], 10)


def test_tiles_of_one_camera_are_one_camera():
    left, right = View("A", 2, 2, (0.0, 0.0, 0.5, 1.0)), View("A", 2, 2, (0.5, 0.0, 1.0, 1.0))
    grids = [(left, torch.tensor([4, 5, 6, 7])), (View("B", 1, 1), torch.tensor([8])), (right, torch.arange(4))]
    token_map = TokenMap.from_grids(grids, 9)
    assert token_map.cameras == ("A", "B") and token_map.counts == {"A": 8, "B": 1}
    assert token_map.positions("A").tolist() == list(range(8))
    assert token_map.boxes("A")[0].tolist() == [0.5, 0, 0.75, 0.5]
    assert token_map.boxes("A")[4].tolist() == [0, 0, 0.25, 0.5]


def test_boxes_tile_the_frame():
    boxes = TokenMap.from_spans({"A": (1, 7)}, 8, grids={"A": (2, 3)}).boxes("A")
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    torch.testing.assert_close(areas, torch.full((6,), 1 / 6))
    torch.testing.assert_close(boxes[0], torch.tensor([0, 0, 1 / 3, 1 / 2]))
    torch.testing.assert_close(boxes[5], torch.tensor([2 / 3, 1 / 2, 1, 1]))


def test_boxes_of_a_padded_frame_reach_beyond_the_image():
    """An image twice as wide as high, padded above and below to a square of 4 x 4 tokens."""
    view = View("A", 4, 4, (0.0, -0.5, 1.0, 1.5))
    boxes = TokenMap.from_grids([(view, torch.arange(16))], 16).boxes("A")
    assert boxes[0].tolist() == [0, -0.5, 0.25, 0]
    assert boxes[5].tolist() == [0.25, 0, 0.5, 0.5]
    assert boxes[15].tolist() == [0.75, 1, 1, 1.5]


# Predictions


@given(st.integers(1, 1000).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
def test_indices_survive_packing(case):
    size, indices = case
    packed = pack_indices(torch.tensor(sorted(indices, reverse=True), dtype=torch.long), size)
    assert unpack_indices(packed).tolist() == sorted(indices)
    assert len(packed) <= size / 6 + 8
    json.dumps(packed)


def test_a_prediction_survives_its_row():
    prediction = Prediction(
        "a",
        "Where?",
        "Here.",
        tags=(0, 2),
        stages=[(1, 72)],
        objects=[("A", "small", "car", 1, 2)],
        kept={"CAM_FRONT": "gA=="},
    )
    row = json.loads(json.dumps(prediction.to_row()))
    assert Prediction.from_row(row) == prediction
    assert asdict(Prediction.from_row({"id": "a", "question": "?"})) == asdict(Prediction("a", "?"))
