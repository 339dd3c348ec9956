"""Training the network of pruner=learned on a model, and pruning with it."""

import pytest
import torch
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.pruning.token_scorer import TokenScorer
from prune2drive.tasks import train

pytestmark = pytest.mark.slow  # trains


def settings(folder, *overrides):
    return runs.configuration(
        "task=train_scorer",
        "model=tiny",
        "dataset.split=train",
        "dataset.size=120",
        "logger=none",
        f"folder={folder}",
        f"task.save_to={folder}/scorers/tiny.safetensors",
        "task.module.hidden=16",
        "task.module.steps=60",
        "task.module.frames=2",
        "task.module.held_out=0.34",
        *overrides,
    )


def test_the_network_learns_what_shows_objects_and_prunes_a_run(tmp_path):
    found = train.run(settings(tmp_path))
    assert 0.6 < found <= 1, "0.5 is chance: a tiny model's random tower tells objects from the ground"
    file = tmp_path / "scorers/tiny.safetensors"
    scorer, about = TokenScorer.read(file)
    assert about["layer"] == "1" and scorer.hidden.out_features == 16
    runs.run(
        tmp_path / "run", "pruner=learned", f"pruner.file={file}", "model._target_=prune2drive.minidrive.tiny.Tiny"
    )
    assert all(row.answer is not None and row.nominal for row in runs.rows(tmp_path / "run"))


def test_an_interrupted_training_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    short = ("task.module.steps=6", "task.validation.every=3")
    train.run(settings(tmp_path / "whole", *short))
    from prune2drive.tasks.scorer_training import ScorerTraining

    step = ScorerTraining.training_step

    def stopping(self, *batch):
        return step(self, *batch) if self.global_step < 4 else 1 / 0

    with monkeypatch.context() as patched:
        patched.setattr(ScorerTraining, "training_step", stopping)
        with pytest.raises(ZeroDivisionError):
            train.run(settings(tmp_path / "parts", *short, "task.checkpoint_minutes=1e-9"))
    train.run(settings(tmp_path / "parts", *short, f"resume={tmp_path / 'parts'}"))
    whole, parts = (TokenScorer.read(tmp_path / name / "scorers/tiny.safetensors")[0] for name in ("whole", "parts"))
    assert torch.equal(whole.hidden.weight, parts.hidden.weight)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.module.layer=9", "layers 0 to"),
        ("dataset.size=8", "frames are too few"),
        ("task.module.steps=0", "steps"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        train.run(settings(tmp_path, override))
