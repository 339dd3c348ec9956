"""Runs of DriveLM's question files."""

import json
import math

import pytest
from helpers import runs

from prune2drive.minidrive.dataset import PER_FRAME as ASKED
from prune2drive.minidrive.dataset import MiniDrive

pytestmark = pytest.mark.slow  # whole runs


def test_an_exported_split_scores_the_same(tmp_path):
    size, drivelm = 2 * ASKED, tmp_path / "drivelm"
    MiniDrive(size=size).export(drivelm)
    runs.run(tmp_path / "drawn", "metrics=drivelm", f"dataset.size={size}", "ratios.keep=0.3")
    runs.ask(tmp_path / "read", drivelm, "ratios.keep=0.3")
    drawn, read = (
        sorted((r.question, r.frame, r.answer, r.kept) for r in runs.rows(tmp_path / n)) for n in ("drawn", "read")
    )
    assert drawn == read
    drawn, read = (runs.read(tmp_path / name, "metrics.json") for name in ("drawn", "read"))
    assert runs.without_costs(drawn) == pytest.approx(runs.without_costs(read))


def test_questions_without_answers_have_costs_and_no_score(tmp_path, caplog):
    drivelm = tmp_path / "drivelm"
    MiniDrive(size=2 * ASKED).export(drivelm)
    scenes = json.loads((drivelm / "v1_1_train_nus.json").read_text())
    for frame in (frame for scene in scenes.values() for frame in scene["key_frames"].values()):
        for row in (row for stage in frame["QA"].values() for row in stage):
            del row["A"], row["tag"]
    (tmp_path / "v1_1_val_nus_q_only.json").write_text(json.dumps(scenes))
    score = runs.ask(tmp_path / "run", tmp_path, f"dataset.images={drivelm}/nuscenes")
    assert math.isnan(score)
    metrics = runs.read(tmp_path / "run", "metrics.json")
    assert {"tokens/visual_kept", "flops/ratio", "coverage/objects"} <= set(metrics)
    assert not {"score", "exact_match", "language", "final_offline"} & set(metrics)
    rows = runs.rows(tmp_path / "run")
    assert len(rows) == 2 * ASKED and all(row.reference is None and row.answer is not None for row in rows)
    assert "no score: these questions have no reference answers" in caplog.text


def test_score_of_questions_without_one_tag_is_warned_of_once(tmp_path, caplog):
    MiniDrive(size=4 * ASKED).export(tmp_path)
    file = tmp_path / "v1_1_train_nus.json"
    scenes = json.loads(file.read_text())
    for frame in (frame for scene in scenes.values() for frame in scene["key_frames"].values()):
        for stage, rows in frame["QA"].items():
            frame["QA"][stage] = [row for row in rows if row["tag"] != [3]]
    file.write_text(json.dumps(scenes))
    score = runs.ask(tmp_path / "run", tmp_path, "full=true", "ratios.keep=0.3")
    metrics = runs.read(tmp_path / "run", "metrics.json")
    assert score == metrics["score"] == pytest.approx((metrics["language"] + metrics["accuracy"]) / 2)
    assert metrics["score_parts"] == metrics["full/score_parts"] == 2 and "final_offline" not in metrics
    assert caplog.text.count("score leaves out match_f1 (tag 3)") == 1
