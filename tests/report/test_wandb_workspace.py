"""The dashboard as code; tests of runs and of searches compare it with what they log."""

import json

import pytest
import wandb
from helpers import dashboards
from helpers.wandb_server import environment, serve

from prune2drive.metrics.base import SCORE, Column
from prune2drive.report import wandb_workspace

COLUMNS = {
    **SCORE,
    "tokens/visual_kept": Column("kept", in_comparison=True, is_cost=True),
    "tokens/nominal": Column("budget", in_comparison=True),
    "flops/ratio": Column("FLOPs", is_cost=True),
}
METRICS = [
    "tokens/nominal",
    "score",
    "score_n",
    "score_stderr",
    "tokens/visual_kept",
    "tokens/CAM_A/kept",
    "time/prefill_ms",
]


@pytest.fixture
def run(tmp_path):
    """A folder with a run's files."""
    columns = {key: vars(column) for key, column in COLUMNS.items()}
    (tmp_path / "sweep/0").mkdir(parents=True)
    (tmp_path / "sweep/0/run.json").write_text(json.dumps({"columns": columns}))
    (tmp_path / "sweep/0/metrics.json").write_text(json.dumps(dict.fromkeys(METRICS, 0.5)))
    return tmp_path / "sweep"


def test_panels_are_of_metrics_that_there_are(run):
    shown = dashboards.sections(wandb_workspace.workspace("me", "cars", *wandb_workspace.logged([run])))
    assert shown["Score against cost"] == {"score", "tokens/visual_kept"}
    assert shown["Tokens of each camera"] == {"tokens/CAM_A/kept", "tokens per camera_table"}
    assert shown["Latency"] == {"time/prefill_ms", "latency_table"}
    without = dashboards.sections(wandb_workspace.workspace("me", "cars", COLUMNS, ["tokens/visual_kept"]))
    assert "Score against cost" not in without


def test_the_layout_as_json(run, capsys, monkeypatch):
    monkeypatch.setattr(wandb, "Api", lambda *_: pytest.fail("W&B was asked"))
    wandb_workspace.main([str(run), "--json", "--project", "cars"])
    layout = json.loads(capsys.readouterr().out)
    assert (layout["project"], layout["displayName"]) == ("cars", "Prune2Drive")
    names = [section["name"] for section in layout["spec"]["section"]["panelBankConfig"]["sections"]]
    assert names[0] == "Score against cost" and names[-1] == "Search"
    assert "summary:score" in layout["spec"]["section"]["runSets"][0]["runFeed"]["columnPinned"]


@pytest.mark.slow
def test_saved(run, capsys, monkeypatch, tmp_path):
    wandb.teardown()
    with serve("works") as server:
        monkeypatch.delenv("WANDB_MODE", raising=False)
        for name, value in {**environment(server), "WANDB_DIR": str(tmp_path), "HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        wandb_workspace.main([str(run), "--project", "cars"])
        url = f"http://127.0.0.1:{server.server_port}/somebody/cars?nw="
        assert capsys.readouterr().out.startswith(url)
        (saved,) = [given for field, given in server.told if field == "upsertView"]
        assert json.loads(saved["spec"])["section"]["panelBankConfig"]["sections"]
        wandb.teardown()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no W&B key on this machine; run `wandb login`, or look at the layout with --json"),
        (["empty"], "empty: no finished run, whose metrics a dashboard would show; `python run.py` makes one"),
    ],
)
def test_one_line_says_what_to_do(options, said, run, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(SystemExit) as ended:
        wandb_workspace.main(options or [str(run)])
    assert (ended.value.code, capsys.readouterr().err) == (2, f"error: {said}\n")


def test_without_the_package(run, capsys, monkeypatch):
    monkeypatch.setattr(wandb_workspace, "ws", None)
    with pytest.raises(SystemExit):
        wandb_workspace.main([str(run), "--json"])
    assert capsys.readouterr().err == "error: the dashboard needs pip install 'prune2drive[workspace]'\n"
