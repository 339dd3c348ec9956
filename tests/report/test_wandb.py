"""What a run leaves for W&B, read back from the files that `wandb sync` uploads."""

import json
import os
from pathlib import Path

import pytest
import wandb
from helpers import runs
from helpers.wandb_files import read

from prune2drive.errors import InputError

pytestmark = pytest.mark.slow  # whole runs


OPTIONS = ("logger=wandb", "dataset.size=5", "pictures=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Runs of one process: `first`, `failed`, `second`; `home` was the home folder and `work` the current one."""
    folder = tmp_path_factory.mktemp("wandb")
    wandb.teardown()  # else the service of an earlier test would be named again when the environment is restored
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("WANDB_") or name.startswith("XDG_")]:
            patched.delenv(name)
        for name in ("home", "work"):
            (folder / name).mkdir()
        patched.setenv("HOME", str(folder / "home"))
        patched.setenv("WANDB_SILENT", "true")
        patched.chdir(folder / "work")
        runs.run(folder / "first", *OPTIONS, "pruner=random", "ratios.keep=0.25")
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(runs.Lively, "generate", lambda *_, **__: (_ for _ in ()).throw(InputError("broken")))
            with pytest.raises(InputError, match="broken"):
                runs.run(folder / "failed", *OPTIONS)
        runs.run(folder / "second", *OPTIONS, "pruner=tfps", "logger.name=mine")
        wandb.teardown()
    return folder


@pytest.fixture(scope="module", params=["first", "second"])
def folder(request, place) -> Path:
    return place / request.param


def test_each_run_is_one_of_its_own(place):
    first, second = read(place / "first"), read(place / "second")
    assert first.exit_code == second.exit_code == 0
    assert first.run.run_id != second.run.run_id
    assert first.run.project == second.run.project == "prune2drive"
    assert (first.run.display_name, second.run.display_name) == ("random-uniform", "mine")
    assert first.run.run_group == "minidrive-tiny"


def test_all_files_are_in_the_run_folder(place):
    assert sorted(each.name for each in place.iterdir()) == ["failed", "first", "home", "second", "work"]
    assert list((place / "work").iterdir()) == []
    assert [file for file in (place / "home").rglob("*") if "wandb" in str(file.relative_to(place))] == []


def test_the_configuration(folder):
    run, config = runs.read(folder, "run.json"), read(folder).config
    for key in ("config", "choices", "git", "versions", "command", "dataset"):
        assert config[key] == run[key], key


def test_every_metric(folder):
    metrics, found = runs.read(folder, "metrics.json"), read(folder)
    assert len(metrics) > 50
    for shown in (found.history, found.summary):
        assert {key: shown[key] for key in metrics} == pytest.approx(metrics)


def test_the_table_of_answers(folder):
    found = read(folder)
    table = json.loads((found.files / found.history["answers"]["path"]).read_text())
    assert table["columns"] == ["id", "question", "answer", "reference", "kept", "of", "error"]
    assert table["data"] == [
        [row.id, row.question, row.answer, row.reference, sum(row.kept_counts.values()), 384, None]
        for row in runs.rows(folder)
    ]


def test_the_pictures(folder):
    found = read(folder)
    shown = found.history["kept tokens"]
    assert shown["_type"] == "images/separated" and shown["count"] == 2
    pictures = [(found.files / name).read_bytes() for name in shown["filenames"]]
    assert pictures == [(folder / "pictures" / f"{row.id}.png").read_bytes() for row in runs.rows(folder)[:2]]
    assert shown["captions"] == [f"{row.question} -> {row.answer}" for row in runs.rows(folder)[:2]]


def test_online_without_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    before = runs.Lively.loaded
    with pytest.raises(InputError, match="logger.offline=false: no W&B key .*run `wandb login`"):
        runs.run(tmp_path / "run", *OPTIONS, "logger.offline=false")
    assert runs.Lively.loaded == before


def test_a_failed_run_does_not_run_into_the_next(place):
    assert read(place / "failed").exit_code == 1
    assert read(place / "second").summary["score"] == runs.read(place / "second", "metrics.json")["score"]
