import pytest
import torch
from helpers import runs
from helpers.wandb_files import read_file
from safetensors.torch import load_file

from prune2drive.errors import InputError
from prune2drive.minidrive.training.module import MiniDriveTraining
from prune2drive.minidrive.training.schedule import PHASES
from prune2drive.tasks import train

pytestmark = pytest.mark.slow  # trains

SIZES = {"resolution": 28, "vision_width": 32, "vision_layers": 1, "vision_heads": 1, "width": 32, "layers": 4}
SMALL = [f"task.model.{name}={value}" for name, value in (SIZES | {"heads": 2, "mlp": 32}).items()]
SHORT = [f"task.schedule.{name}=2" for name in (*PHASES, *(f"scenes.{phase}" for phase in PHASES))]


def settings(folder, *overrides, logger="none"):
    return runs.configuration(
        "task=train",
        "model=minidrive",
        f"logger={logger}",
        f"folder={folder}",
        "task.validation.scenes=8",
        "task.validation.every=3",
        "task.recipe.questions=2",
        "task.precision=32",
        "task.log_every=1",
        *SMALL,
        *SHORT,
        *overrides,
    )


@pytest.mark.slow
def test_interrupted_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert 0 <= train.run(settings(whole)) <= 1
    step = MiniDriveTraining.training_step

    def stopping(self, *batch):
        return step(self, *batch) if self.global_step < 4 else 1 / 0

    with monkeypatch.context() as patched:
        patched.setattr(MiniDriveTraining, "training_step", stopping)
        with pytest.raises(ZeroDivisionError):
            train.run(settings(parts, "task.checkpoint_minutes=1e-9", logger="wandb"))
    train.run(settings(parts, f"resume={parts}", logger="wandb"))
    expected, found = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    first, second = map(read_file, sorted(parts.rglob("*.wandb")))
    assert first.run.run_id == second.run.run_id and (first.exit_code, second.exit_code) == (1, 0)
    assert [step["trainer/global_step"] for step in second.steps][-1] > first.steps[-1]["trainer/global_step"]


def test_run_shorter_than_the_steps_between_validations_validates_at_its_end(tmp_path):
    assert 0 <= train.run(settings(tmp_path, "task.validation.every=500")) <= 1


def test_nothing_to_resume_is_one_line(tmp_path):
    with pytest.raises(InputError, match="holds no last.ckpt"):
        train.run(settings(tmp_path, f"resume={tmp_path}"))


WRONG = {
    "+task.model.depth=3": "depth",
    "+task.recipe.difficulties.hard=1": "recipe.difficulties=hard",
    "+task.recipe.kinds.why=1": "recipe.kinds=why",
    "+task.schedule.speed=1": "speed",
    "task.model.layers=2": "layers=2",
    "task.start=7": "^task.start=7: choose from 1, 2$",
    "task.recipe.times=0": "recipe.times=0: use a whole number, 1 or more",
    "+task.recipe.clip_kinds.why=1": "recipe.clip_kinds=why: choose from moving",
    "task.model.resolution=30": "resolution=30: use a multiple of the patch size, 14",
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_setting_is_named(tmp_path, override):
    with pytest.raises(InputError, match=WRONG[override]) as raised:
        train.run(settings(tmp_path, override))
    assert "\n" not in str(raised.value)


def test_a_run_that_had_all_but_ended_ends_with_the_metric_of_its_model(tmp_path, monkeypatch):
    """Its steps are no multiple of those between validations, and what is left of them has none."""
    steps, validated = [], []
    step, validation = MiniDriveTraining.training_step, MiniDriveTraining.validation_step
    monkeypatch.setattr(MiniDriveTraining, "training_step", lambda self, *batch: steps.append(0) or step(self, *batch))
    monkeypatch.setattr(
        MiniDriveTraining,
        "validation_step",
        lambda self, *batch: validated.append(self.global_step) or validation(self, *batch),
    )
    often = ("task.checkpoint_minutes=1e-9", "task.validation.every=4")
    first = train.run(settings(tmp_path, *often))
    assert len(steps) == 6 and validated == [4, 6]
    assert train.run(settings(tmp_path, *often, f"resume={tmp_path}")) == first
    assert len(steps) == 6 and validated == [4, 6, 6]
