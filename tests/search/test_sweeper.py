"""`run.py -m search=...`, its runs made up by a launcher that answers at once, but in `test_real_runs`."""

import pickle
import re
import sys
from pathlib import Path

import cloudpickle
import optuna
import pytest
from helpers import runs
from helpers.made_up_runs import FEW
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import OmegaConf
from optuna.trial import TrialState

from prune2drive.cameras import CAMERAS
from prune2drive.errors import InputError
from prune2drive.pruning import Adaptive
from prune2drive.pruning.selection import budget
from prune2drive.search import page as search_report
from prune2drive.search.runner import RunFailed, SilentTask

pytestmark = pytest.mark.slow  # whole runs


def trials(folder: Path):
    return optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/study.db").trials


def tokens_kept(job) -> int:
    return sum(budget(ratio, 64) for ratio in job["ratios.keep"].values())


def test_a_search_with_its_verdict(cli, launcher, tmp_path):
    code, said, errors = cli("-m", "search=tpe", *FEW, "search.write=true")
    assert (code, errors) == (0, "")
    folder = tmp_path / "outputs/sweeps/s"
    lines = [line for line in said.splitlines() if line.startswith("trial ")]
    assert len(lines) == 6 and re.search(r"trial 5 \(6/6\)  FRONT 0\.\d+ .* R 0\.\d+ .* best .*trials/min", lines[-1])
    stages = [job["folder"] for job in launcher.launched]
    assert stages[:6] == list("012345") and [name.split("/")[0] for name in stages[6:]] == ["val"] * 2 + ["test"] * 5
    for job in launcher.launched:
        split = job["folder"].split("/")[0]
        assert job["dataset.split"] == (split if split in ("val", "test") else "search")
        assert (job["full"], job["logger"], job["ratios"]) == (False, "none", "per_camera")
        assert tokens_kept(job) == 36 and tuple(job["ratios.keep"]) == CAMERAS  # as uniform ratios of 0.1 keep
    best = max(trials(folder), key=lambda trial: trial.values[0])
    winner = Adaptive(str(folder / "winner.yaml"))
    assert winner.ratios(CAMERAS) == best.user_attrs["ratios"]
    assert winner.provenance["trial"] == best.number and winner.provenance["splits"]["test"]["size"] == 8
    low, high = winner.provenance["test_searched_minus"]["uniform"][1:]
    assert winner.ratios(CAMERAS)["CAM_FRONT"] > 0.15 and 0 < low < high
    report = (folder / "search.md").read_text()
    assert "The searched ratios beat uniform ones of the same total" in report and "| front_heavy |" in report
    page = (folder / "report.html").read_text()
    assert "Keep ratios of tiny on minidrive2" in page and "beat uniform ones" in page and "front_heavy" in page
    search_report.main([str(folder)])
    assert (folder / "report.html").read_text() == page
    written = Path("outputs/searched_ratios/tiny_minidrive2.yaml")
    assert written.read_text() == (folder / "winner.yaml").read_text()


def test_without_m_it_is_a_search_too_and_one_that_found_nothing_says_so(cli, launcher, tmp_path):
    launcher.outcome = lambda ratios: {"score": 1.0}
    code, said, _ = cli("search=random", *FEW)
    assert code == 0 and "do not beat uniform ones of the same total: +0.0000 [+0.0000, +0.0000]" in said
    assert not Path("outputs/searched_ratios").exists() and len(launcher.launched) == 6 + 2 + 5


def test_the_rivals_share_the_winners_total(cli, launcher, tmp_path):
    cli("-m", "search=evolution", "search.space=penalty", "search.penalty=0.5", *FEW)
    tested = [tokens_kept(job) for job in launcher.launched if "test/" in job["folder"]]
    assert tested == [tested[0]] * 5 and tested[0] != 36


def test_a_finished_search_is_not_made_again(cli, launcher, tmp_path):
    cli("-m", "search=tpe", *FEW)
    before = len(launcher.launched)
    folder = tmp_path / "outputs/sweeps/s"
    report = (folder / "search.md").read_text()
    assert cli("-m", "search=tpe", *FEW, f"search.resume={folder}")[0] == 0
    assert len(launcher.launched) == before and (folder / "search.md").read_text() == report
    code, _, errors = cli("-m", "search=tpe", *FEW, f"search.resume={folder}", "pruner=random")
    assert code == 2 and re.match(r"error: study s: .* pruner\._target_ was .*TFPS, now .*RandomPruner;", errors)
    assert errors.count("\n") == 1


def test_a_storage_elsewhere_is_remembered(cli, launcher, tmp_path):
    cli("-m", "search=random", *FEW, "search.trials=2", f"search.storage={tmp_path}/trials.log")
    before, folder = len(launcher.launched), tmp_path / "outputs/sweeps/s"
    for _ in range(2):
        assert cli("-m", "search=random", *FEW, "search.trials=2", f"search.resume={folder}")[0] == 0
    assert len(launcher.launched) == before and not (folder / "study.db").exists()
    search_report.main([str(folder)])


def test_a_folder_is_one_studys(cli, launcher, tmp_path):
    """Runs are known by their trials' numbers: another study would take them for its own, whatever they kept."""
    folder = tmp_path / "there"
    search = ("-m", "search=random", *FEW, f"hydra.sweep.dir={folder}")
    cli(*search)
    before = len(launcher.launched)
    for option in ("search.study=t", f"search.storage={tmp_path}/trials.log"):
        code, _, errors = cli(*search, "search.keep=0.5", option)
        assert code == 2 and errors.startswith(
            f"error: {folder} holds another search: go on with search.resume={folder}"
        )
    assert [trial.number for trial in trials(folder)] == [0, 1, 2, 3, 4, 5]
    (folder / "study.db").unlink()
    unknown = f"error: {folder} holds runs that this search does not know; choose another hydra.sweep.dir\n"
    assert cli(*search, "search.keep=0.5")[::2] == (2, unknown)
    (folder / "study.json").unlink()
    assert cli(*search, "search.study=t")[::2] == (2, unknown)
    assert len(launcher.launched) == before


def test_failed_runs(cli, launcher, tmp_path):
    def outcome(ratios):
        if len(launcher.launched) % 2:
            raise RuntimeError(f"out of memory {len(launcher.launched) % 4}")
        return {"score": 0.5}

    launcher.outcome = outcome
    code, said, errors = cli("-m", "search=tpe", *FEW, "search.finalists=1", "search.random_draws=0")
    assert code == 2 and errors.startswith("error: val run") and "failed: out of memory 3; search.resume=" in errors
    states = [trial.state for trial in trials(tmp_path / "outputs/sweeps/s")]
    assert states == [TrialState.FAIL, TrialState.COMPLETE] * 3 and "failed: out of memory 1" in said


def test_the_same_error_again_and_again(cli, launcher, tmp_path):
    launcher.outcome = lambda ratios: {"accuracy": 1.0}
    code, _, errors = cli("-m", "search=tpe", *FEW)
    assert (code, len(launcher.launched)) == (2, 3)
    assert errors == (
        "error: 3 trials in a row failed: search.objective: the trial's metrics.json has no score; it has accuracy\n"
    )
    assert "metrics.json has no score" in (tmp_path / "outputs/sweeps/s/report.html").read_text()


def test_control_c_and_going_on(cli, launcher, tmp_path):
    def outcome(ratios):
        if len(launcher.launched) == 3:
            raise KeyboardInterrupt
        return {"score": ratios["CAM_FRONT"]}

    launcher.outcome = outcome
    code, said, _ = cli("-m", "search=tpe", *FEW)
    folder = tmp_path / "outputs/sweeps/s"
    assert code == 130 and f"search.resume={folder}" in said and "interrupted after 2 trials, the best is" in said
    assert "2 of 6, 0 failed" in (folder / "report.html").read_text()
    assert cli("-m", "search=tpe", *FEW, f"search.resume={folder}")[0] == 0
    done = [trial for trial in trials(folder) if trial.state == TrialState.COMPLETE]
    ratios = [tuple(job["ratios.keep"].values()) for job in launcher.launched]
    assert len(done) == 6 and ratios[2] == ratios[3], "what was interrupted is tried again"
    assert all(trial.state != TrialState.RUNNING for trial in trials(folder))


def test_as_many_at_once_as_the_launcher_runs(cli, launcher, monkeypatch):
    batches = []
    launch = launcher.launch
    monkeypatch.setattr(launcher, "launch", lambda jobs, initial_job_idx: batches.append(len(jobs)) or launch(jobs, 0))
    assert cli("-m", "search=tpe", *FEW, "hydra/launcher=joblib", "hydra.launcher.n_jobs=4")[0] == 0
    assert batches == [4, 2, 2, 4, 1]


WRONG = {
    "pruner=tfps,random": "pruner=tfps,random: a search is of one configuration; give pruner one value",
    "experiment=distance": "pruner.metric: swept by an experiment",
    "ratios.keep=0.2": "ratios.keep=0.2: a search sets it",
    "resume=x": "resume=x: a search sets it; use search.resume",
    "dataset.split=val": "dataset.split: the search sets it for each of its splits; use search.splits",
    "task=coverage": "task=coverage: a search compares answers",
    "pruner=none": "pruner=none: drops no tokens",
    "pruner.layer=99": "pruner.layer=99",
    "batch_size=0": "batch_size=0",
    "shard=1/2": "shard=1/2: a search has no use for it; leave shard out",
    "search.engine=foo": "search.engine=foo: choose from optuna, nni",
    "search.sampler=foo": "search.sampler=foo: optuna has no such sampler",
    "search.space=foo": "search.space=foo: choose from penalty, simplex",
    "search.keep=0.01": "search.keep=0.01: no ratios",
    "search.low=2": "search.low=2",
    "search.trials=0": "search.trials=0: use a whole number, 1 or more",
    "search.at_once=0": "search.at_once=0",
    "search.objective={score:x}": "search.objective.score=x: give a number",
    "search.penalty=x": "search.penalty=x: give a number",
    "search.storage=sqlite:////nowhere/x.db": "search.storage=sqlite:////nowhere/x.db: cannot be used",
    "search.resume=nowhere": "search.resume=nowhere: no such folder",
    "search.resume=.": r"study.json: no such file; name the folder of a search",
    "search.splits.val.split=search": "search.splits: search and val share frame",
    "search.splits.test.split=foo": "foo",
    "search.splits.val=null": "search.splits.val=null: give options of the dataset",
    "search.splits=null": "search.splits.search=null: give options of the dataset",
}


@pytest.mark.parametrize("option", WRONG)
def test_bad_input_is_one_line_before_the_first_trial(option, refusal, launcher):
    said = refusal("-m", "search=tpe", *FEW, option)
    assert re.search(WRONG[option], said), said
    assert not launcher.launched


def test_real_runs(cli, tmp_path):
    small = (*FEW, *runs.QUIET, "generation.max_new_tokens=3", "search.trials=2", "search.random_draws=0")
    code, said, errors = cli("-m", "search=nni_tpe", *small, "search.finalists=1")
    assert (code, errors) == (0, "") and "do not beat" in said
    folder = tmp_path / "outputs/sweeps/s"
    for trial in trials(folder):
        record = runs.read(folder / str(trial.number), "run.json")
        assert record["ratios"] == trial.user_attrs["ratios"] and record["dataset"]["size"] == 8
        metrics = runs.read(folder / str(trial.number), "metrics.json")
        assert trial.user_attrs["reward"] == metrics["score"]


def test_a_task_and_its_errors_travel_between_processes(tmp_path):
    """Joblib and submitit pickle both."""

    def task(cfg):
        print("a table that nobody reads")
        raise InputError(cfg.why) if cfg.why else OSError("disk\nfull")

    travelled = cloudpickle.loads(cloudpickle.dumps(SilentTask(task)))
    with pytest.raises(RunFailed, match="^OSError: disk$") as raised:
        travelled(OmegaConf.create({"why": "", "folder": str(tmp_path)}))
    assert str(pickle.loads(pickle.dumps(raised.value))) == "OSError: disk"
    assert "disk\nfull" in (tmp_path / "error.txt").read_text()


def test_a_terminated_run_ends_the_search():
    """A queue's time is over: Lightning ends its run so."""

    def task(cfg):
        raise SIGTERMException

    with pytest.raises(KeyboardInterrupt):
        SilentTask(task)(OmegaConf.create({}))


@pytest.mark.parametrize(("inside", "outside"), [(InputError, RunFailed), (KeyboardInterrupt, KeyboardInterrupt)])
def test_what_an_exit_of_a_run_means(inside, outside, capsys):
    """run.py ends so where input is bad, Lightning where it is interrupted."""

    def task(cfg):
        try:
            raise inside("no such file")
        except inside:
            print("error", file=sys.stderr)
            sys.exit(2)

    with pytest.raises(outside, match="no such file" if inside is InputError else ""):
        SilentTask(task)(OmegaConf.create({}))
    assert capsys.readouterr() == ("", "")
