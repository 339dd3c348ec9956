"""A search with all its trials as one W&B run."""

import json
import os
import re
from types import SimpleNamespace

import pytest
import wandb
from helpers import dashboards
from helpers.made_up_runs import SMALL
from helpers.wandb_files import read, read_file

from prune2drive.report import wandb_workspace

pytestmark = pytest.mark.slow  # whole runs


OPTIONS = ("model=tiny", "search.study=s", "search.space=penalty", *SMALL, "search.trials=21")


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    """W&B as in a home folder of its own."""
    wandb.teardown()  # else the service of an earlier test would be named again when the environment is restored
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_"))]:
            patched.delenv(name)
        patched.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patched.setenv("WANDB_SILENT", "true")
        yield
        wandb.teardown()


def trials(found: SimpleNamespace) -> list[dict]:
    """What was logged of each trial, without W&B's clock."""
    steps = [step for step in found.steps if "failed" in step]
    return [{key: value for key, value in step.items() if not key.startswith("_")} for step in steps]


def table(found: SimpleNamespace, name: str) -> dict:
    return json.loads((found.files / found.history[f"{name}_table"]["path"]).read_text())


def test_a_search_is_one_run(at_home, cli, launcher, tmp_path):
    def outcome(ratios):
        if len(launcher.launched) == 2:
            raise RuntimeError("out of memory")
        return {"score": ratios["CAM_FRONT"]}

    launcher.outcome = outcome
    assert cli("-m", "search=tpe", *OPTIONS, "logger.project=mine")[0] == 0
    wandb.teardown()  # what is still on its way is written
    folder = tmp_path / "outputs/sweeps/s"
    found = read(folder)
    assert {job["logger"] for job in launcher.launched} == {"none"}
    assert (found.run.project, found.run.display_name) == ("mine", "tfps-optuna-tpe-penalty")
    assert (found.exit_code, found.run.job_type) == (0, "search")
    steps = trials(found)
    assert [step["trial"] for step in steps] == list(range(21))
    assert [step["failed"] for step in steps] == [0, 1] + [0] * 19 and "objective" not in steps[1]
    for step, job in zip(steps, launcher.launched, strict=False):
        ratios = job["ratios.keep"]
        assert {camera: step[f"ratio/{camera}"] for camera in ratios} == pytest.approx(ratios)
        assert step["mean_ratio"] == pytest.approx(sum(ratios.values()) / 6)
        if not step["failed"]:
            assert step["reward"] == ratios["CAM_FRONT"]
            assert step["objective"] == pytest.approx(step["reward"] - 0.03 * sum(ratios.values()))
    known = [step["objective"] for step in steps if "objective" in step]
    assert steps[-1]["best"] == max(known) and steps[0]["best"] == known[0]
    assert dict(table(found, "importance")["data"]).keys() == ratios.keys()
    front = table(found, "front")
    assert len(front["data"]) == 20 and any(row[-1] for row in front["data"])
    assert found.config["search"]["sampler"] == "tpe" and found.config["config"]["space"] == "penalty"
    assert found.summary["verdict"].startswith("The searched ratios beat uniform")
    assert found.summary["winner/CAM_FRONT"] == max(step.get("reward", 0) for step in steps)
    low, high = (found.summary[f"test/searched_minus_uniform_{end}"] for end in ("low", "high"))
    assert low < found.summary["test/searched_minus_uniform"] < high
    dashboard = wandb_workspace.workspace("me", "cars", {}, [])
    for name in dashboards.sections(dashboard)["Search"]:
        assert any(re.fullmatch(name.removeprefix("~"), key) for key in found.history), name
    for name in ("importance_table", "front_table"):
        assert dashboards.columns(dashboard)[name] <= set(table(found, name.removesuffix("_table"))["columns"])
    assert {"report.html"} <= found.artifacts["run"]


def test_an_interrupted_search_goes_on_as_the_same_run(at_home, cli, launcher, tmp_path):
    def outcome(ratios):
        if len(launcher.launched) == 3:
            raise KeyboardInterrupt
        return {"score": ratios["CAM_FRONT"]}

    launcher.outcome = outcome
    few = ("-m", "search=tpe", *OPTIONS, "search.trials=5")
    assert cli(*few)[0] == 130
    wandb.teardown()
    folder = tmp_path / "outputs/sweeps/s"
    before = read(folder)
    assert before.exit_code == 1 and len(trials(before)) == 2
    assert before.summary["winner"] in (0, 1) and "verdict" not in before.summary
    assert cli(*few, f"search.resume={folder}")[0] == 0
    wandb.teardown()
    files = sorted(folder.rglob("*.wandb"), key=lambda file: file.stat().st_mtime)
    first, second = map(read_file, files)
    assert first.run.run_id == second.run.run_id and second.exit_code == 0
    assert len(trials(second)) == 5 and trials(second)[:2] == trials(first)


def test_online_without_a_key(at_home, cli, launcher):
    code, _, errors = cli("-m", "search=tpe", *OPTIONS, "logger.offline=false")
    assert (code, errors.count("\n")) == (2, 1) and "logger.offline=false: no W&B key" in errors
    assert not launcher.launched
