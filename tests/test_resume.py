"""A run that is killed loses nothing that was finished, and goes on where it was."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
import runs

from prune2drive.data.minidrive import MiniDrive
from prune2drive.errors import InputError
from prune2drive.models.adapter import Adapter
from prune2drive.report import publish

OPTIONS = ("dataset.size=24", "batch_size=2", "pruner=random", "ratios.keep=0.3", "pictures=1")
IDS = MiniDrive(size=24).ids
KILLS = 20


def in_a_child(folder: Path, *overrides: str) -> int:
    """Starts the run in a copy of this process, all of whose imports are done; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(folder.with_suffix(".log"), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        runs.run(folder, *OPTIONS, *overrides)
        code = 0
    finally:
        os._exit(code)


def seconds_of(folder: Path) -> float:
    started = time.perf_counter()
    assert os.waitpid(in_a_child(folder), 0)[1] == 0
    return time.perf_counter() - started


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    runs.run(folder, *OPTIONS)
    return folder


@pytest.fixture(scope="module")
def length(whole, tmp_path_factory) -> float:
    """Seconds that an uninterrupted run takes in a child."""
    folder = tmp_path_factory.mktemp("length")
    return max(seconds_of(folder / str(number)) for number in range(2))


@pytest.fixture
def generated(monkeypatch) -> Counter:
    """How often each sample's answer is generated from now on in this process."""
    counts = Counter()
    collate = Adapter.collate

    def counting(self, samples):
        counts.update(sample.id for sample in samples)
        return collate(self, samples)

    monkeypatch.setattr(Adapter, "collate", counting)
    return counts


def finished_ids(folder: Path) -> list[str]:
    """What is on disk, read without the code under test."""
    files = sorted(folder.glob("predictions*.jsonl"))
    lines = [line for file in files for line in file.read_bytes().splitlines(keepends=True)]
    return [json.loads(line)["id"] for line in lines if line.endswith(b"\n")]


def check_complete(folder: Path, whole: Path) -> None:
    assert finished_ids(folder) == IDS
    assert runs.answers(folder) == runs.answers(whole)
    assert [row.kept for row in runs.rows(folder)] == [row.kept for row in runs.rows(whole)]
    metrics, expected = runs.read(folder, "metrics.json"), runs.read(whole, "metrics.json")
    assert metrics.keys() == expected.keys()
    assert runs.without_costs(metrics) == runs.without_costs(expected)
    run = runs.read(folder, "run.json")
    assert run["status"] == "finished"
    assert run["counts"] == {"planned": 24, "done": 24, "failed": 0}
    assert (folder / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment(number, length, whole, tmp_path, generated):
    """One kill in each twentieth of a run's length, the last ones while the results are written."""
    folder = tmp_path / "run"
    folder.mkdir()
    child = in_a_child(folder)
    time.sleep(length * (number + random.Random(number).random()) / KILLS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    before = finished_ids(folder)
    assert before == IDS[: len(before)]
    if (folder / "run.json").exists():
        runs.resume(folder, *OPTIONS)
    else:
        runs.run(folder, *OPTIONS)
    check_complete(folder, whole)
    assert generated == Counter(IDS[len(before) :])


@pytest.mark.parametrize("name", ["metrics.json", "run.json", "report.html", "pictures", "predictions.jsonl"])
def test_killed_while_the_results_are_written(name, whole, tmp_path, generated):
    """At the moment at which the n-th file of the end is being replaced."""
    folder = tmp_path / "run"
    pid = os.fork()
    if not pid:
        replace = Path.replace

        def kill(self, target):
            if name in str(target) and (name != "run.json" or (folder / "metrics.json").exists()):
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(self, target)

        Path.replace = kill
        os.replace = lambda source, target: kill(Path(source), target)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            runs.run(folder, *OPTIONS)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    before = finished_ids(folder)
    assert len(before) == (0 if name == "pictures" else 24)
    runs.resume(folder, *OPTIONS)
    check_complete(folder, whole)
    assert sum(generated.values()) == 24 - len(before)
