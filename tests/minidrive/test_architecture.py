import json
import shutil

import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from prune2drive.errors import InputError
from prune2drive.minidrive.architecture import Architecture, build_model, save
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import MiniDriveModel

SMALL = Architecture(28, vision_width=32, vision_layers=1, vision_heads=1, width=32, layers=1, heads=2, mlp=32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    save(build_model(SMALL), SMALL, folder)
    return folder


def test_save_writes_a_stock_checkpoint(checkpoint):
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint)
    assert model.dtype == torch.bfloat16
    processor = json.loads((checkpoint / "processor_config.json").read_text())
    assert processor["processor_class"] == "LlavaOnevisionProcessor"
    assert processor["num_image_tokens"] == 4
    assert processor["image_processor"]["size"] == {"height": 28, "width": 28}


def test_saved_model_answers_samples(checkpoint):
    adapter = MiniDriveModel(checkpoint=str(checkpoint))
    samples = [MiniDrive("val", resolution=28, size=20)[index] for index in (0, 9)]
    prompts = adapter.collate(samples)
    assert [token_map.counts for token_map in prompts.token_maps] == [dict.fromkeys(samples[0].cameras, 4)] * 2
    assert len(adapter.generate(prompts, max_new_tokens=2)) == 2


@pytest.mark.parametrize("harm", ["truncated", "overwritten", "missing"])
def test_damaged_checkpoint_is_one_clear_line(checkpoint, tmp_path, harm):
    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    if harm == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-100] if harm == "truncated" else b"weights" * 99)
    with pytest.raises(InputError, match="model.checkpoint=") as raised:
        MiniDriveModel(checkpoint=str(tmp_path)).model  # noqa: B018  # weights are read when they are first asked for
    assert "\n" not in str(raised.value)


def test_images_of_another_size_are_resized_with_one_warning(checkpoint, caplog):
    adapter = MiniDriveModel(checkpoint=str(checkpoint))
    fitting, small = (MiniDrive("val", resolution=side, size=2) for side in (28, 50))
    expected = adapter.collate([fitting[0]])
    assert not caplog.records
    prompts = [adapter.collate([small[index]]) for index in (0, 1)]
    assert prompts[0].inputs["pixel_values"].shape == expected.inputs["pixel_values"].shape
    (record,) = caplog.records
    assert record.getMessage() == "the model reads 28 x 28 pixels: images of 50 x 50 are resized"


def test_missing_packaged_model_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.setattr("prune2drive.minidrive.model.CHECKPOINTS", tmp_path)
    with pytest.raises(InputError, match="task=train model=minidrive"):
        MiniDriveModel()
