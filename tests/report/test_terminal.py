"""What a finished run prints."""

from pathlib import Path

import pytest

from prune2drive.report.terminal import print_run

SHARE = {"label": "score", "is_share": True, "in_run": True, "in_comparison": True}
RUN = {
    "choices": {"model": "tiny", "pruner": "tfps"},
    "columns": {
        "score": SHARE,
        "accuracy": SHARE,
        "hidden": {**SHARE, "in_run": False},
        "time/select_ms": {**SHARE, "is_share": False},
    },
    "counts": {"planned": 3, "done": 2, "failed": 1},
    "is_noise": False,
}
METRICS = {"time/select_ms": 12.345678, "hidden": 1.0, "score": 0.5, "score_stderr": 0.1, "score_n": 2, "more": 3.0}


@pytest.fixture
def printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def run(metrics, **changes):
        print_run({**RUN, **changes}, metrics, Path("out/report.html"))
        said = capsys.readouterr().out
        return [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if "│" in line], said

    return run


def test_print_run_shows_the_declared_columns(printed):
    rows, said = printed(METRICS)
    assert rows == [["score", "0.5000", "0.1000", "2"], ["time/select_ms", "12.35", "", ""]]
    assert "tiny · tfps" in said and "report: out/report.html" in said
    assert "2 of 3 questions answered, 1 failed" in said and "noise" not in said


def test_print_run_compares_with_all_tokens(printed):
    rows, _ = printed({**METRICS, "full/score": 0.75, "full/score_stderr": 0.05, "accuracy": 0.25})
    assert rows == [
        ["score", "0.750 [0.652, 0.848]", "0.500 [0.304, 0.696]"],
        ["accuracy", "", "0.250"],
        ["time/select_ms", "", "12.35"],
    ]


def test_print_run_warns_of_random_weights(printed):
    assert "scores are noise" in printed(METRICS, is_noise=True)[1]
