"""What a run records for the token explorer."""

import json

import pytest
import torch
from helpers.page_runs import SIDE, TOKENS, minidrive, write_run
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.results.selections import Selections, pack_order, selection_of, unpack_order
from prune2drive.sample import ObjectBox, Sample, TokenMap
from prune2drive.token_map import View


def sample(name="a", objects=()):
    return Sample(name, {"CAM_X": None}, "Why?", "Why?", objects=objects, image_sizes={"CAM_X": (200, 100)})


def lines(folder):
    return [each["id"] for each in Selections(folder)]


@given(st.lists(st.integers(0, 65_535), unique=True))
def test_orders_can_be_read_again(order):
    assert unpack_order(pack_order(torch.tensor(order, dtype=torch.long))) == order


def test_grids_objects_and_order():
    token_map = TokenMap.from_spans({"CAM_X": (2, 8), "CAM_Y": (8, 12)}, 12, {"CAM_X": (2, 3)})
    things = (ObjectBox("CAM_X", (20, 10, 100, 50), "Car"), ObjectBox("CAM_Z", (0, 0, 1, 1)))
    picked = {"CAM_X": torch.tensor([4, 1]), "CAM_Y": torch.tensor([0])}
    found = selection_of(sample(objects=things), token_map, picked)
    assert found["grids"] == {"CAM_X": [[[2, 3, 0.0, 0.0, 1.0, 1.0]]], "CAM_Y": [[[2, 2, 0.0, 0.0, 1.0, 1.0]]]}
    assert found["objects"] == [["CAM_X", 0.1, 0.1, 0.5, 0.5, "Car"]]
    assert {camera: unpack_order(order) for camera, order in found["order"].items()} == {"CAM_X": [4, 1], "CAM_Y": [0]}
    assert "order" not in selection_of(sample(), token_map, {"CAM_X": torch.tensor([1, 4])})
    assert json.loads(json.dumps(found)) == found


def test_cells_of_tokens_that_are_not_in_raster_order():
    views = View("CAM_X", 1, 2), View("CAM_X", 1, 2, (0.0, 0.0, 0.5, 1.0))
    token_map = TokenMap.from_grids([(views[0], torch.tensor([0, 3])), (views[1], torch.tensor([1, 2]))], 4)
    shown, cells = selection_of(sample(), token_map, {})["grids"]["CAM_X"]
    boxes = [
        [x0 + (x1 - x0) * column / 2, y0, x0 + (x1 - x0) * (column + 1) / 2, y1]
        for _, _, x0, y0, x1, y1 in shown
        for column in range(2)
    ]
    assert [boxes[cell] for cell in cells] == token_map.boxes("CAM_X").tolist()


def test_no_more_than_the_limit_also_after_a_torn_line(tmp_path):
    first = Selections(tmp_path, 3)
    first.append([{"id": "a"}])
    first.append([])
    with first.file.open("a") as file:
        file.write('{"id": "torn')
    again = Selections(tmp_path, 3)
    assert again.left == 2
    again.append([{"id": "b"}])
    Selections(tmp_path, 3, rank=1).append([{"id": "c"}])
    assert lines(tmp_path) == ["a", "b", "c"] and again.left == 1


def test_nothing_recorded(tmp_path):
    assert lines(tmp_path) == [] and Selections(tmp_path).left == 0


@pytest.mark.parametrize("ordered", [True, False])
def test_made_up_runs_are_like_real_ones(tmp_path, ordered):
    dataset, config = minidrive(2)
    write_run(tmp_path, [dataset[0], dataset[1]], ["a", "b"], 5, config, ordered=ordered)
    found = list(Selections(tmp_path))
    assert ["order" in each for each in found] == [ordered] * 2
    assert found[0]["grids"]["CAM_BACK"] == [[[SIDE, SIDE, 0.0, 0.0, 1.0, 1.0]]] and TOKENS == SIDE * SIDE
