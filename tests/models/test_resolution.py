"""Images at another resolution than the checkpoint's."""

import pytest
import torch
from helpers.families import IMAGE, llava_onevision

from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import MiniDriveModel
from prune2drive.models.llava_onevision import resize_positions


@pytest.mark.parametrize("side", [14, 42])
@torch.inference_mode()
def test_positions_are_those_that_the_tower_interpolates(side):
    model = llava_onevision().model
    tower, pixels = model.base_model.vision_tower, torch.randn(2, 3, side, side)
    expected = tower(pixels, interpolate_pos_encoding=True).last_hidden_state
    resize_positions(model, side)
    torch.testing.assert_close(tower(pixels).last_hidden_state, expected)
    assert model.config.image_token_id == IMAGE


@torch.inference_mode()
def test_a_model_answers_from_more_and_from_fewer_tokens():
    sample = MiniDrive("val", size=1)[0]
    for side in (56, 112, 196):
        adapter = MiniDriveModel(dtype="float32", resolution=side)
        prompts = adapter.collate([sample])
        assert prompts.token_maps[0].counts == dict.fromkeys(sample.cameras, (side // 14) ** 2)
        (answer,) = adapter.generate(prompts, max_new_tokens=3, do_sample=False)
        assert answer.text
        if side == 112:
            same = MiniDriveModel(dtype="float32")
            assert same.generate(same.collate([sample]), max_new_tokens=3, do_sample=False) == [answer]


@pytest.mark.parametrize("side", [0, 100, 14.5])
def test_a_resolution_has_whole_patches(side):
    with pytest.raises(InputError, match=f"^model.resolution={side}: use a"):
        MiniDriveModel(resolution=side)
