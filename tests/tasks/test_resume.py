"""A run that is killed loses nothing that was finished, and goes on where it was."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.models.adapter import Adapter
from prune2drive.results.run_folder import FORMAT, RunFolder

pytestmark = pytest.mark.slow  # whole runs


SIZE = 12
OPTIONS = (f"dataset.size={SIZE}", "batch_size=2", "pruner=random", "ratios.keep=0.3", "generation.max_new_tokens=2")
IDS = MiniDrive(size=SIZE).ids
KILLS = 6


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
def length(whole, tmp_path_factory) -> float:
    """Seconds that an uninterrupted run takes in a child."""
    folder = tmp_path_factory.mktemp("length")
    return max(seconds_of(folder / str(number)) for number in range(2))


@pytest.fixture
def generated(monkeypatch) -> Counter:
    """How often each sample's answer is generated from now on in this process."""
    counts = Counter()
    collate = Adapter.collate

    def counting(self, samples, **options):
        counts.update(sample.id for sample in samples)
        return collate(self, samples, **options)

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
    assert runs.without_costs(metrics) == runs.without_costs(expected)
    run = runs.read(folder, "run.json")
    assert run["status"] == "finished"
    assert run["counts"] == {"planned": SIZE, "done": SIZE, "failed": 0}
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_any_moment(number, length, whole, tmp_path, generated):
    """One kill in each part of a run's length, the last ones while the results are written."""
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


@pytest.mark.parametrize("name", ["pictures", "predictions.jsonl", "metrics.json", "run.json", "report.html"])
def test_killed_while_a_file_is_written(name, whole, tmp_path, generated):
    """The moment before the new content takes its name."""
    folder, drawn = tmp_path / "run", int(name in ("pictures", "metrics.json"))
    pid = os.fork()
    if not pid:
        replace = os.replace

        def kill(source, target):
            if name in str(target) and (name != "run.json" or (folder / "metrics.json").exists()):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = kill
        append = RunFolder.append
        RunFolder.append = lambda self, rows: append(self, reversed(list(rows)))  # or there were nothing to merge
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            runs.run(folder, *OPTIONS, f"pictures={drawn}")
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    before = finished_ids(folder)
    assert len(before) == (0 if name == "pictures" else SIZE)
    runs.resume(folder, *OPTIONS, f"pictures={drawn}")
    check_complete(folder, whole)
    assert len(list((folder / "pictures").glob("[!.]*.png"))) == drawn
    assert sum(generated.values()) == SIZE - len(before)


def interrupted(whole: Path, folder: Path, files: dict[str, bytes]) -> Path:
    """A copy of a run whose rows are in these files, and whose results were not written."""
    folder.mkdir()
    (folder / "run.json").write_bytes((whole / "run.json").read_bytes())
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def lines(whole: Path) -> list[bytes]:
    return (whole / "predictions.jsonl").read_bytes().splitlines(keepends=True)


def test_torn_lines_and_files_of_ranks(whole, tmp_path, generated):
    rows = lines(whole)
    files = {
        "predictions.jsonl": b"".join(rows[:6:2]) + rows[6][:40],
        "predictions.rank1.jsonl": b"".join(rows[1:6:2]) + rows[7][:-1],
        "predictions.rank2.jsonl": rows[8][:1],
    }
    folder = interrupted(whole, tmp_path / "run", files)
    runs.resume(folder, *OPTIONS)
    check_complete(folder, whole)
    assert generated == Counter(IDS[6:])
    assert [file.name for file in folder.glob("predictions*")] == ["predictions.jsonl"]


def test_a_row_that_two_ranks_have_counts_once(whole, tmp_path, generated):
    rows = lines(whole)
    files = {"predictions.jsonl": b"".join(rows[:4]), "predictions.rank1.jsonl": b"".join(rows[2:6])}
    folder = interrupted(whole, tmp_path / "run", files)
    runs.resume(folder, *OPTIONS)
    check_complete(folder, whole)
    assert generated == Counter(IDS[6:])


def test_a_damaged_line_is_named_and_nothing_is_lost(whole, tmp_path, generated):
    rows = lines(whole)
    damaged = b"".join(rows[:2]) + rows[2][:50] + b"\n" + rows[3]
    folder = interrupted(whole, tmp_path / "run", {"predictions.jsonl": damaged})
    with pytest.raises(InputError, match="predictions.jsonl, line 3: not a row"):
        runs.resume(folder, *OPTIONS)
    assert (folder / "predictions.jsonl").read_bytes() == damaged
    assert not generated


def test_failed_samples_are_tried_again(tmp_path, monkeypatch, whole, generated):
    folder, bad = tmp_path / "run", set(IDS[3:10:4])
    getitem = MiniDrive.__getitem__

    def broken(self, index):
        if self.ids[index] in bad:
            raise InputError("photo.jpg: no such image")
        return getitem(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(MiniDrive, "__getitem__", broken)
        runs.run(folder, *OPTIONS, "on_error=skip")
    assert runs.read(folder, "run.json")["counts"]["failed"] == len(bad)
    generated.clear()
    runs.resume(folder, *OPTIONS)
    check_complete(folder, whole)
    assert generated == Counter(bad)


def test_a_finished_run_is_left_as_it_is(whole, tmp_path, generated):
    before = (whole / "metrics.json").read_bytes(), (whole / "predictions.jsonl").read_bytes()
    score = runs.resume(whole, *OPTIONS)
    assert not generated
    assert (whole / "predictions.jsonl").read_bytes() == before[1]
    assert runs.read(whole, "metrics.json") == json.loads(before[0])
    assert score == json.loads(before[0])["score"]
    check_complete(whole, whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("ratios.keep=0.5", "ratios.keep was 0.3, now 0.5"),
        ("pruner=tfps", r"pruner was \w+.RandomPruner, now \w+.TFPS"),
        ("pruner.layer=2", "pruner.layer was 1, now 2"),
        ("model.seed=1", "model.seed was 0, now 1"),
        ("dataset.size=11", "dataset.size was 12, now 11"),
        ("metrics=drivelm", "metrics was exact_match.ExactMatch, now drivelm.DriveLMScore"),
        ("generation.max_new_tokens=9", "generation.max_new_tokens was 2, now 9"),
        ("positions=renumber", "positions was null, now renumber"),
        ("rounding=seed", "rounding was nearest, now seed"),
        ("seed=3 pruner.seed=0 dataset.seed=0", "seed was 0, now 3"),
    ],
)
def test_another_run_is_refused(change, named, whole, generated):
    before = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=f"^resume={whole}: {named}$") as caught:
        runs.resume(whole, *OPTIONS, *change.split(" "))
    assert "\n" not in str(caught.value)
    assert before == {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    assert not generated


def test_the_same_folder_with_other_questions_is_refused(tmp_path):
    questions = tmp_path / "drivelm"
    MiniDrive(size=2).export(questions)
    runs.ask(tmp_path / "run", questions)
    file = questions / "v1_1_train_nus.json"
    file.write_text(file.read_text().replace("important objects", "objects"))
    with pytest.raises(InputError, match="the dataset has changed since"):
        runs.ask(tmp_path / "run", questions, f"resume={tmp_path}/run")


@pytest.mark.parametrize("more", ["batch_size=8", "num_workers=1", "on_error=skip", "pictures=0", "latency.warm_up=2"])
def test_what_changes_no_answer_may_change(more, whole, tmp_path, generated):
    folder = interrupted(whole, tmp_path / "run", {"predictions.jsonl": b"".join(lines(whole)[:9])})
    runs.resume(folder, *OPTIONS, more)
    check_complete(folder, whole)
    assert lines(folder)[:9] == lines(whole)[:9], "not computed again"


@pytest.mark.parametrize("content", ["{}", '{"config": {}}', "", "{", "[]"])
def test_a_folder_without_a_runs_description_is_refused(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError) as caught:
        runs.resume(tmp_path, *OPTIONS)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_folder_of_an_earlier_version_is_refused(whole, tmp_path, generated):
    folder = interrupted(whole, tmp_path / "run", {"predictions.jsonl": b"".join(lines(whole)[:2])})
    run = runs.read(folder, "run.json")
    assert run.pop("format") == FORMAT
    (folder / "run.json").write_text(json.dumps(run))
    with pytest.raises(InputError, match=f"^resume={folder}: written by an earlier version; run the command again"):
        runs.resume(folder, *OPTIONS)
    assert (folder / "predictions.jsonl").read_bytes() == b"".join(lines(whole)[:2]) and not generated


def test_no_run_folder(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path}/run.json: no such file; {tmp_path} is no run folder to resume"):
        runs.resume(tmp_path, *OPTIONS)
