"""What W&B is sent of a finished run, without a W&B run."""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from prune2drive.cameras import CAMERAS
from prune2drive.errors import InputError
from prune2drive.report.logger import Finished
from prune2drive.report.wandb.content import log_run
from prune2drive.report.wandb.pictures import GAP, WIDTH, masked_image
from prune2drive.sample import Prediction, pack_indices


def logged(finished: Finished) -> dict:
    """What W&B is sent of a run."""
    sent = {}
    taking = SimpleNamespace(update=lambda *_, **__: None)
    log_run(SimpleNamespace(config=taking, summary=taking, tags=(), name="", log=sent.update), finished, 2)
    return sent


def test_a_token_is_where_its_mask_is():
    """In six photos of two tokens each, of which the right one is kept and a third of the left one is padding."""
    boxes = torch.tensor([[-0.25, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    photos = {camera: Image.new("RGB", (40, 20), "red") for camera in (*CAMERAS[:5], "TOP")}
    row = Prediction("1", "What?", kept={camera: pack_indices(torch.tensor([1]), 2) for camera in photos})
    image = masked_image(row, {camera: (photo, boxes) for camera, photo in photos.items()}, "m")
    assert Image.open(image._path).size == (3 * WIDTH + 2 * GAP, 2 * WIDTH // 2 + GAP)
    masks = {key: np.array(Image.open(mask._path)) for key, mask in image._masks.items()}
    covered = sum((mask > 0).astype(int) for mask in masks.values())
    assert covered.max() == 1 and covered.sum() == 6 * WIDTH * WIDTH // 2
    front = masks["CAM_FRONT m"][: WIDTH // 2, WIDTH + GAP : 2 * WIDTH + GAP]
    assert (front[:, : WIDTH // 2] == 2).all() and (front[:, WIDTH // 2 :] == 1).all()
    assert (masks["TOP m"][WIDTH // 2 + GAP :, 2 * (WIDTH + GAP) :] > 0).all(), "cameras of no known place come last"


def test_a_run_whose_photos_are_gone_has_no_pictures():
    def gone(row):
        raise InputError("no photo")

    rows = [
        Prediction(f"{number}", "What?", answer="a", kept={"CAM": pack_indices(torch.tensor([1]), 2)})
        for number in range(3)
    ]
    sent = logged(Finished({}, {}, rows, views=gone))
    assert "kept tokens" not in sent and "kept tokens" not in sent["answers"].columns
    assert [row[0] for row in sent["answers"].data] == [row.id for row in rows]


def test_the_answers_that_pruning_spoiled_come_first():
    """Then those that are wrong anyway; of a question that one of the runs did not answer nothing is known."""
    pruned = [Prediction(f"{number}", "What?", answer="a", kind=kind) for number, kind in enumerate("xxyyy")]
    full = [Prediction(row.id, "What?", answer="b") for row in pruned]
    known = {"a": {"0": 1.0, "1": 0.0, "2": 0.0, "3": 0.5}, "b": {"0": 1.0, "1": 0.0, "2": 1.0, "3": 0.75}}
    sent = logged(Finished({}, {}, pruned, full, scores=lambda rows: known[rows[0].answer]))
    answers = sent["answers"]
    scores = [answers.columns.index(name) for name in ("score", "score, all tokens")]
    assert [[row[0], *(row[column] for column in scores)] for row in answers.data] == [
        ["2", 0.0, 1.0],
        ["3", 0.5, 0.75],
        ["1", 0.0, 0.0],
        ["4", None, None],
        ["0", 1.0, 1.0],
    ]
    assert [row[:2] + row[3:] for row in sent["question types"].table.data] == [
        ["x", 0.5, 2, 0.5],
        ["y", 0.25, 2, 0.875],
    ]
