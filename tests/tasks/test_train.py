from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from prune2drive.errors import InputError
from prune2drive.minidrive.architecture import Architecture
from prune2drive.minidrive.questions import KINDS_ASKED
from prune2drive.minidrive.training.batches import IGNORED, OUTSIDE, PREFIX, PackedMiniDrive, Recipe
from prune2drive.minidrive.training.module import MiniDriveTraining
from prune2drive.minidrive.training.schedule import GUIDES, STRETCHES, Schedule
from prune2drive.tasks import train

SIZES = Architecture(
    resolution=28, vision_width=32, vision_layers=1, vision_heads=1, width=32, layers=4, heads=2, mlp=32
)
SCHEDULE = Schedule(4, 8, 5, dict.fromkeys(STRETCHES, 2), dict.fromkeys(GUIDES, 1.0))
RECIPE = Recipe(3, {"dense": 1.0}, dict.fromkeys(KINDS_ASKED, 1.0), scenes=2, resolution=28)
CONFIGS = str(Path(train.__file__).parents[1] / "configs")


def settings(folder, *overrides):
    small = [f"task.model.{name}={value}" for name, value in vars(SIZES).items()]
    brief = [f"task.schedule.{stretch}=2" for stretch in ("naming", "learning", "settling")]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return compose(
            "config",
            [
                "task=train",
                "model=minidrive",
                "logger=none",
                f"folder={folder}",
                "task.validation.scenes=8",
                "task.validation.every=3",
                "task.recipe.questions=2",
                "task.precision=32",
                "task.schedule.scenes={naming: 2, learning: 2, settling: 2}",
                "task.log_every=1",
                "trainer.accelerator=cpu",
                "trainer.enable_progress_bar=false",
                *small,
                *brief,
                *overrides,
            ],
        )


@pytest.fixture
def module():
    torch.manual_seed(0)
    return MiniDriveTraining(SIZES, SCHEDULE, RECIPE, 8).eval()


@torch.no_grad()
def test_packed_questions_are_answered_as_if_each_were_asked_alone(module):
    batch = PackedMiniDrive(lambda: (), module.tokenizer).batch(0, RECIPE)
    hidden = module.read(batch, module.see(batch["pixels_SC3HW"])).last_hidden_state
    module.model.set_attn_implementation({"text_config": "sdpa"})
    for scene in range(2):
        for question in range(3):
            segment = batch["segment_ST"][scene]
            mine = (segment == PREFIX) | (segment == question)
            alone = module.model.model(
                input_ids=batch["ids_ST"][scene : scene + 1, mine],
                mm_encoder_outputs={"image": module.see(batch["pixels_SC3HW"][scene : scene + 1])},
            ).last_hidden_state[0]
            torch.testing.assert_close(hidden[scene, mine], alone, atol=1e-5, rtol=1e-4)
    assert (batch["labels_ST"][batch["segment_ST"] == OUTSIDE] == IGNORED).all()


@pytest.mark.parametrize("step, vision, language", [(0, True, False), (4, False, True), (12, True, True)])
def test_each_stretch_teaches_its_part(module, monkeypatch, step, vision, language):
    monkeypatch.setattr(MiniDriveTraining, "global_step", step)
    module.log = lambda *values, **options: None
    module.training_step(PackedMiniDrive(lambda: (), module.tokenizer).batch(0, RECIPE), 0).backward()
    taught = {name for name, weight in module.model.named_parameters() if weight.grad is not None}
    assert any("vision_tower" in name for name in taught) == vision
    assert any("language_model.layers" in name for name in taught) == language


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert 0 <= train.run(settings(whole)) <= 1
    step = MiniDriveTraining.training_step

    def stopping(self, *batch):
        return step(self, *batch) if self.global_step < 4 else 1 / 0

    with monkeypatch.context() as patched:
        patched.setattr(MiniDriveTraining, "training_step", stopping)
        with pytest.raises(ZeroDivisionError):
            train.run(settings(parts, "task.checkpoint_minutes=1e-9"))
    train.run(settings(parts, f"resume={parts}"))
    expected, found = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_nothing_to_resume_is_one_line(tmp_path):
    with pytest.raises(InputError, match="holds no last.ckpt"):
        train.run(settings(tmp_path, f"resume={tmp_path}"))


WRONG = [
    "+task.model.depth=3",
    "+task.recipe.difficulties.hard=1",
    "+task.recipe.kinds.why=1",
    "+task.schedule.speed=1",
    "task.model.layers=2",
]


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_setting_is_named(tmp_path, override):
    with pytest.raises(InputError, match="depth|hard|why|speed|layers=2"):
        train.run(settings(tmp_path, override))
