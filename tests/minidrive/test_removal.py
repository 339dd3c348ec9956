"""The folder can be removed: nothing else imports it."""

import json
import multiprocessing

import pytest
from helpers import without_minidrive

pytestmark = pytest.mark.slow  # whole runs


def test_drivelm_runs_without_minidrive(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=without_minidrive.main, args=(tmp_path,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(sum(row["kept_counts"].values()) < sum(row["full_counts"].values()) for row in rows)
