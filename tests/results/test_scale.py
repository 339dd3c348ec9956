"""What is done with all rows of a run, on few of them: `benchmarks.scale` measures it on many."""

import json
import tracemalloc

from benchmarks import scale
from prune2drive.report.finished_run import FinishedRun
from prune2drive.report.paired import compare

FRAMES = scale.SHARDS


def test_each_step_takes_all_rows(tmp_path):
    count = FRAMES * scale.PER_FRAME + 1
    scale.write(tmp_path, count)
    for step in scale.STEPS.values():
        step(tmp_path, count)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["exact_match_n"] == count and 0 < metrics["exact_match"] < 1
    assert "with all tokens" in (tmp_path / "run/report.html").read_text()


def test_a_page_holds_frames_not_rows(tmp_path):
    peaks = []
    for frames in (FRAMES, 4 * FRAMES):
        folder = tmp_path / str(frames)
        scale.write(folder, frames * scale.PER_FRAME)
        run, full = (FinishedRun.read(folder / "run") for _ in range(2))
        tracemalloc.start()
        found = compare(run, full)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert found.parts["exact_match"].n == frames * scale.PER_FRAME
    assert peaks[1] < 1.5 * peaks[0]
