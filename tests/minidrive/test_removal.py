"""The folder can be removed: nothing else imports it."""

import json
import subprocess
import sys

import pytest
from helpers.runs import REPOSITORY

pytestmark = pytest.mark.slow  # whole runs


def test_drivelm_runs_without_minidrive(tmp_path):
    command = [sys.executable, "-m", "helpers.without_minidrive", str(tmp_path)]
    path = f"{REPOSITORY}/tests:{REPOSITORY}"
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-3]) > 100
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"
    rows = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(sum(row["kept_counts"].values()) < sum(row["full_counts"].values()) for row in rows)
