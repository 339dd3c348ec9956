import os

import pytest
from helpers import runs
from omegaconf import OmegaConf

from prune2drive.errors import InputError
from prune2drive.tasks.launched_jobs import wait_for_all_jobs
from prune2drive.tasks.main import _run_or_exit

pytestmark = pytest.mark.slow  # whole runs


submitit = pytest.importorskip("submitit", reason="no submitit: pip install 'prune2drive[parallel]'")
LAUNCHER = OmegaConf.create({"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"})


def job(folder, *options):
    """What a launcher calls in a process that it has started."""
    cfg = runs.configuration(f"folder={folder}", runs.LIVELY, *runs.SMALL, *options)
    return _run_or_exit(["run.py", "-m"], os.getpid() + 1, cfg)


def test_bad_input_of_a_job_is_raised_for_the_launcher_to_return(tmp_path):
    with pytest.raises(InputError, match=r"^pruner.layer=99: "):
        job(tmp_path, "pruner.layer=99")


def test_ranks_that_slurm_has_not_started(tmp_path, monkeypatch):
    counts = {"NTASKS": 1, "NTASKS_PER_NODE": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0}
    for name, value in {"JOB_NAME": "run", **counts}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    with pytest.raises(InputError, match=r"^trainer: .*--ntasks-per-node=1.* set hydra.launcher.tasks_per_node"):
        job(tmp_path, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def test_a_job_that_slurm_restarts_goes_on_with_its_run(tmp_path, monkeypatch):
    with runs.without_java():
        job(tmp_path)
        whole = (tmp_path / "predictions.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "predictions.jsonl").write_text("".join(whole[:3]) + whole[3][:20])
        with pytest.raises(InputError, match="holds another run: go on with resume="):
            job(tmp_path)
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        job(tmp_path)
        job(tmp_path / "killed before it began")
    assert (tmp_path / "predictions.jsonl").read_text().splitlines(keepends=True)[:3] == whole[:3]
    assert len(runs.answers(tmp_path)) == 8 and runs.read(tmp_path, "run.json")["status"] == "finished"


def test_a_killed_job_fails_by_itself(tmp_path, monkeypatch):
    """And not the whole launch, which waits for the others."""
    monkeypatch.setattr(submitit.Job, "results", submitit.Job.results)
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0)
    wait_for_all_jobs(LAUNCHER)
    wait_for_all_jobs(LAUNCHER)
    executor = submitit.LocalExecutor(tmp_path)
    killed = executor.submit(lambda overrides: os.kill(os.getpid(), 9), ["pruner=tfps"])
    other = executor.submit(lambda overrides: overrides, ["pruner=fastv"])
    (lost,) = killed.results()
    assert other.results() == [["pruner=fastv"]]
    with pytest.raises(
        InputError, match=rf"^job {killed.job_id} ended without a result \(.+\): see .+\.err; "
    ) as raised:
        lost.return_value  # noqa: B018  # raises what the job raised
    assert lost.overrides == ["pruner=tfps"] and "\n" not in str(raised.value)
