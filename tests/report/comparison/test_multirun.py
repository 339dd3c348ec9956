"""The table of a multirun, made from its run folders."""

import json

import pytest
from omegaconf import OmegaConf

from prune2drive.report.comparison import Comparison


def column(label, is_share=False, in_run=True, in_comparison=True):
    return {"label": label, "is_share": is_share, "in_run": in_run, "in_comparison": in_comparison}


COLUMNS = {
    "score": column("score", is_share=True),
    "accuracy": column("accuracy", is_share=True, in_comparison=False),
    "coverage/objects": column("coverage", is_share=True),
    "tokens/nominal": column("budget", in_run=False),
    "tokens/visual_kept": column("kept"),
}


def job(folder, overrides, metrics, columns=COLUMNS, axis="final"):
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra/overrides.yaml").write_text(json.dumps(overrides))
    (folder / "run.json").write_text(json.dumps({"columns": columns, "config": {"budget_axis": axis}}))
    (folder / "metrics.json").write_text(json.dumps(metrics))


def compare(folder):
    Comparison().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))
    return (folder / "comparison.md").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    for number, (pruner, score) in enumerate({"a": 0.5, "b": 0.9}.items()):
        metrics = {"score": score, "score_stderr": 0.1, "accuracy": 0.25, "coverage/objects": 0.3}
        metrics |= {"tokens/visual_kept": 40, "tokens/visual_kept_stderr": 0.5, "tokens/nominal": 40}
        job(tmp_path / str(number), ["seed=1", f"pruner={pruner}"], metrics)
    return tmp_path


def test_comparison_shows_what_run_json_declares(sweep):
    assert compare(sweep) == [
        "| job | score | coverage | budget | kept |",
        "| --- | --- | --- | --- | --- |",
        "| pruner=a | 0.500 [0.304, 0.696] | 0.3 | 40 | 40 ± 0.5 |",
        "| pruner=b | 0.900 [0.704, 1.000] | 0.3 | 40 | 40 ± 0.5 |",
        "",
        "budget: tokens after the last cut",
    ]


def test_comparison_of_two_benchmarks_has_the_columns_of_both(sweep):
    job(sweep / "10", ["seed=1", "dataset=c"], {"x/y": 3.0}, {"x/y": column("novel")}, "layer_average")
    lines = compare(sweep)
    assert lines[0] == "| job | score | coverage | budget | kept | novel |"
    assert lines[4] == "| dataset=c |  |  |  |  | 3 |"
    assert lines[-1] == "budget: mean tokens over all layers or tokens after the last cut"


def test_comparison_prints_the_first_share_and_no_column_twice(sweep, capsys):
    compare(sweep)
    said = capsys.readouterr().out
    header = next(line for line in said.splitlines() if "score" in line)
    assert header.split() == ["job", "score", "budget"] and "seed=1" in said
    assert ["b", "0.900", "40"] in [line.split() for line in said.splitlines()]


def test_comparison_leaves_out_a_damaged_run(sweep, caplog):
    (sweep / "0/metrics.json").write_text("{")
    assert len(compare(sweep)) == 5
    assert "0 is left out: metrics.json: not valid JSON" in caplog.text


def test_comparison_of_no_runs_writes_nothing(tmp_path):
    Comparison().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert not list(tmp_path.iterdir())
