"""Whole runs on clips: budgets by camera, by view, and over a camera's times."""

import pytest
from helpers import runs

from prune2drive.errors import InputError

pytestmark = pytest.mark.slow  # whole runs

CLIPS = ("dataset.times=2", "+dataset.cameras=[CAM_FRONT,CAM_BACK]")
TOKENS = 64  # of an image


def kept(folder):
    return [{view: count / TOKENS for view, count in row.kept_counts.items()} for row in runs.rows(folder)]


def test_a_budget_for_each_view(tmp_path):
    budgets = "ratios.keep={CAM_FRONT: 0.125, CAM_BACK: 0.5, CAM_BACK@1: 0.25}"
    runs.run(tmp_path, *CLIPS, "ratios=per_camera", "~ratios.keep", f"+{budgets}", "explorer=8")
    expected = {"CAM_FRONT@0": 0.125, "CAM_FRONT@1": 0.125, "CAM_BACK@0": 0.5, "CAM_BACK@1": 0.25}
    assert kept(tmp_path) == [expected] * 8
    assert runs.read(tmp_path, "run.json")["ratios"] == expected
    metrics = runs.read(tmp_path, "metrics.json")
    assert metrics["tokens/CAM_BACK@1/kept"] == 16 and "exact_match" in metrics
    assert 0 <= metrics["coverage/CAM_BACK@0"] <= 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '"short":["FRONT@0","BACK@0","FRONT@1","BACK@1"],"columns":2' in page


def test_one_pool_of_all_times(tmp_path):
    runs.run(tmp_path, *CLIPS, "ratios.keep=0.25", "pruner.scope=over_time", "dataset.size=16")
    for row in kept(tmp_path):
        assert row["CAM_FRONT@0"] + row["CAM_FRONT@1"] == 0.5 == row["CAM_BACK@0"] + row["CAM_BACK@1"]
    assert any(row["CAM_FRONT@0"] != row["CAM_FRONT@1"] for row in kept(tmp_path))


@pytest.mark.parametrize("wrong", ["CAM_FRONT@2", "CAM_LEFT"])
def test_an_unknown_camera_or_time(tmp_path, wrong):
    with pytest.raises(InputError, match=f"^keep ratio for unknown camera {wrong}: the cameras here are CAM_FRONT@0, "):
        keep = f"+ratios.keep={{CAM_FRONT: 0.1, CAM_BACK: 0.1, {wrong}: 0.1}}"
        runs.run(tmp_path, *CLIPS, "ratios=per_camera", "~ratios.keep", keep)
