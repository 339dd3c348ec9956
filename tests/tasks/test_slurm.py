"""Hydra's launcher on a real Slurm of one node; skipped where it cannot be started."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import runs, servers

from prune2drive.tasks.merge import merge

pytest.importorskip("submitit", reason="no submitit: pip install 'prune2drive[parallel]'")
pytestmark = pytest.mark.slow
SCRIPT = "slurm_node.sh"
LAUNCHER = ("-m", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10", "model=tiny", *runs.QUIET)
SMALL = ("generation.max_new_tokens=3", "latency.questions=0", "pictures=0")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of programs that find the Slurm."""
    folder = tmp_path_factory.mktemp("slurm")
    servers.reachable(folder)
    try:
        servers.start(SCRIPT, folder)
        yield {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PYTHONPATH": str(runs.REPOSITORY)}
    finally:
        servers.stop(SCRIPT, folder)


@pytest.fixture
def launch(slurm, tmp_path):
    """Starts a multirun, whose folder is `sweep`."""

    def start(*options: str) -> subprocess.Popen:
        command = [sys.executable, runs.REPOSITORY / "run.py", *LAUNCHER, *SMALL, "hydra.sweep.dir=sweep", *options]
        return subprocess.Popen(command, cwd=tmp_path, env=slurm, stdout=-1, stderr=-1, text=True)

    return start


def process_of(job: str) -> psutil.Process:
    """The process in which submitit runs a job of an array."""
    for process in psutil.process_iter(["cmdline"]):
        if "submitit.core._submit" in process.info["cmdline"] and "srun" not in process.info["cmdline"][0]:
            environment = process.environ()
            if job == f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}":
                return process
    raise AssertionError(f"no process of {job}")


def test_a_sweep_of_which_one_job_is_killed(launch, tmp_path):
    sweep = tmp_path / "sweep"
    started = launch("batch_size=4", "dataset.size=8,10000")
    while not (sweep / "1/predictions.jsonl").exists():
        assert started.poll() is None, started.communicate()[1]
        time.sleep(0.2)
    (log,) = sweep.glob(".submitit/*_1/*_log.err")
    process_of(log.parent.name).kill()
    _, errors = started.communicate()
    assert started.returncode == 2 and "Traceback" not in errors, errors
    last = errors.splitlines()[-1]
    assert re.match(
        rf"error: job {log.parent.name} ended without a result \(\w.+\): see {log}; finished runs are", last
    )
    assert runs.read(sweep / "0", "run.json")["status"] == "finished" and len(runs.rows(sweep / "0")) == 8
    assert len(list((sweep / "0/wandb").glob("offline-run-*/*.wandb"))) == 1
    assert runs.read(sweep / "1", "run.json")["status"] == "running" and runs.rows(sweep / "1")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


def test_shards_with_two_ranks_each(launch, tmp_path):
    """The launcher starts the ranks, as tasks of a job."""
    ranks = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.launcher.tasks_per_node=2")
    started = launch("logger=none", "dataset.size=60", "shard=1/2,2/2", *ranks)
    assert not started.wait(), started.communicate()[1]
    shards = [tmp_path / "sweep" / name for name in "01"]
    merged = merge(shards)
    assert sorted(row.id for shard in shards for row in runs.rows(shard)) == sorted(runs.answers(merged))
    assert len(runs.rows(merged)) == 60


def test_a_search(launch, tmp_path):
    sizes = ["search.splits.search.frames=1", *(f"search.splits.{name}.sample=8" for name in ("val", "test"))]
    few = ("search.trials=2", "search.finalists=1", "search.random_draws=0", "hydra.launcher.array_parallelism=2")
    started = launch("logger=none", "search=random", *few, *sizes)
    said, errors = started.communicate()
    assert started.returncode == 0, errors
    assert "trial 1 (2/2)" in said and (tmp_path / "sweep/search.md").exists()
    finished = [file.parent for file in Path(tmp_path, "sweep").glob("**/metrics.json")]
    assert sorted(len(runs.rows(folder)) for folder in finished) == [8] * (1 + 3) + [10] * 2
