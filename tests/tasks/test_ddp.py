"""Two ranks, each a process that Lightning starts with the same command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import runs

from prune2drive.minidrive.dataset import MiniDrive

OPTIONS = ("dataset.size=7", "batch_size=2", "pruner=random", "ratios.keep=0.3", "pictures=1")
IDS = MiniDrive(size=7).ids

pytestmark = pytest.mark.slow


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
    where = f"hydra.run.dir={folder}"
    command = [
        sys.executable,
        str(runs.REPOSITORY / "run.py"),
        where,
        "model=tiny",
        *ranks,
        runs.LIVELY,
        *runs.SMALL,
        *overrides,
    ]
    (folder.parent / "sitecustomize.py").write_text(AT_EXIT)
    paths = (str(folder.parent), str(runs.REPOSITORY / "tests"), os.environ.get("PYTHONPATH"))
    path = os.pathsep.join(filter(None, paths))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run of a single process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    runs.run(folder, *OPTIONS)
    return folder


def check_equal(folder: Path, alone: Path) -> None:
    rows = runs.rows(folder)
    assert [row.id for row in rows] == IDS
    assert [(row.answer, row.kept) for row in rows] == [(row.answer, row.kept) for row in runs.rows(alone)]
    metrics, expected = (runs.without_costs(runs.read(each, "metrics.json")) for each in (folder, alone))
    metrics = {key: value for key, value in metrics.items() if not key.startswith("full/")}
    assert metrics == pytest.approx(expected, rel=1e-12) and metrics["score_n"] == 7
    assert runs.read(folder, "run.json")["counts"] == {"planned": 7, "done": 7, "failed": 0}
    assert [file.name for file in folder.glob("predictions*")] == ["predictions.jsonl"]


def test_an_odd_number_of_samples(alone, tmp_path):
    folder = tmp_path / "run"
    done = two_ranks(folder, *OPTIONS, "logger=wandb", "full=true")
    assert done.returncode == 0, done.stderr
    assert "still in the process group" not in done.stderr
    assert [row.id for row in runs.rows(folder / "full")] == IDS
    check_equal(folder, alone)
    assert len(list(folder.rglob("*.wandb"))) == 1
    assert done.stdout.count("7 of 7 questions answered") == 1
    assert len(list((folder / "pictures").iterdir())) == 1
    assert {row.batch for row in runs.rows(folder)} == {IDS[0], IDS[1], IDS[4], IDS[5]}, "samples went in turn"


def test_ranks_finish_what_an_interrupted_run_left(alone, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = (alone / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "run.json").write_bytes((alone / "run.json").read_bytes())
    (folder / "predictions.jsonl").write_bytes(lines[3] + lines[0][:30])
    (folder / "predictions.rank1.jsonl").write_bytes(lines[4] + lines[1][:30])
    done = two_ranks(folder, *OPTIONS, f"resume={folder}")
    assert done.returncode == 0, done.stderr
    check_equal(folder, alone)
    lines_now = (folder / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    assert lines_now[3:5] == lines[3:5], "not computed again"


def test_fewer_samples_than_ranks(tmp_path):
    done = two_ranks(tmp_path / "run", *OPTIONS, "dataset.size=1")
    assert done.returncode == 2
    assert "error: 1 samples left for 2 ranks; set trainer.devices to at most 1" in done.stderr
    assert done.stderr.count("error:") == 1 and "GLOBAL_RANK" not in done.stderr, "before other ranks are started"
    assert not (tmp_path / "run" / "run.json").exists()
    assert "Traceback" not in done.stderr
