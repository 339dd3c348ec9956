"""Two ranks, each a process that Lightning starts with the same command."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import runs

from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.results.selections import Selections
from prune2drive.tasks.trainer import say_how_to_go_on

pytestmark = pytest.mark.slow  # whole runs


OPTIONS = ("dataset.size=14", "batch_size=2", "pruner=random", "ratios.keep=0.3", "pictures=1", "explorer=10")
IDS = MiniDrive(size=14).ids


AT_EXIT = """
import atexit, sys

@atexit.register
def check():
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_initialized():
        print("still in the process group", file=sys.stderr)
"""  # registered first, so called last


def two_ranks(folder: Path, *overrides: str) -> subprocess.CompletedProcess:
    ranks = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.enable_progress_bar=false")
    options = (f"hydra.run.dir={folder}", "model=tiny", *ranks, runs.LIVELY, *runs.SMALL, *overrides)
    (folder.parent / "sitecustomize.py").write_text(AT_EXIT)
    paths = (str(folder.parent), str(runs.REPOSITORY / "tests"), os.environ.get("PYTHONPATH"))
    path = os.pathsep.join(filter(None, paths))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PATH": ""}  # no Java here either
    command = [sys.executable, str(runs.REPOSITORY / "run.py"), *options]
    return subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=300)


def test_ranks_finish_what_an_interrupted_run_left(tmp_path):
    """The pruned half of a run goes on from torn files of two ranks; all of the other half is theirs."""
    alone, folder = tmp_path / "alone", tmp_path / "work" / "run"
    runs.run(alone, *OPTIONS, "full=true")
    folder.mkdir(parents=True)
    lines = (alone / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "run.json").write_bytes((alone / "run.json").read_bytes())
    (folder / "predictions.jsonl").write_bytes(lines[3] + lines[0][:30])
    (folder / "predictions.rank1.jsonl").write_bytes(lines[4] + lines[1][:30])
    done = two_ranks(folder, *OPTIONS, "full=true", "logger=wandb", f"resume={folder}")
    assert done.returncode == 0, done.stderr
    assert "still in the process group" not in done.stderr
    assert done.stdout.count("14 of 14 questions answered") == 1
    for half in (".", "full"):
        rows, expected = runs.rows(folder / half), runs.rows(alone / half)
        assert [row.id for row in rows] == IDS
        assert [(row.answer, row.kept) for row in rows] == [(row.answer, row.kept) for row in expected]
        assert runs.read(folder / half, "run.json")["counts"] == {"planned": 14, "done": 14, "failed": 0}
        assert [file.name for file in (folder / half).glob("predictions*")] == ["predictions.jsonl"]
    metrics, expected = (runs.without_costs(runs.read(each, "metrics.json")) for each in (folder, alone))
    assert metrics == pytest.approx(expected, rel=1e-12) and metrics["score_n"] == 14
    lines_now = (folder / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    assert lines_now[3:5] == lines[3:5], "not computed again"
    assert len(list(folder.rglob("*.wandb"))) == 1
    assert len(list((folder / "pictures").iterdir())) == 1
    recorded = [each["id"] for each in Selections(folder)]
    assert 5 <= len(set(recorded)) == len(recorded) <= 10


def test_fewer_frames_than_ranks(cli, tmp_path, monkeypatch):
    launcher = "lightning.pytorch.strategies.launchers.subprocess_script._SubprocessScriptLauncher"
    monkeypatch.setattr(f"{launcher}.launch", lambda *_, **__: pytest.fail("another rank was started"))
    options = ("dataset.size=1", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    code, _, said = cli("model=tiny", runs.LIVELY, *runs.BARE, *options, f"hydra.run.dir={tmp_path}/run")
    assert code == 2 and said.startswith("error: trainer: 2 ranks for 1 frame left to answer, and a frame is never")
    assert said.endswith("let trainer.devices times trainer.num_nodes be at most 1\n") and said.count("\n") == 1
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_lost_rank_ends_the_run_in_one_line(tmp_path, caplog):
    say_how_to_go_on(tmp_path / "run")
    launcher = logging.getLogger("lightning.fabric.strategies.launchers.subprocess_script")
    with caplog.at_level(logging.INFO, launcher.name):
        launcher.info("[rank: 1] Child process with PID 7 terminated with code -9. Forcefully terminating all others")
        launcher.info("something else")
    going_on = f"the same command with resume={tmp_path}/run goes on"
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("ERROR", f"rank 1 ended with code -9, and with it the run; {going_on}"),
        ("INFO", "something else"),
    ]
