"""`task=coverage`: which objects keep a token, without a word being generated."""

import math
from pathlib import Path

import pytest
import torch
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import PER_FRAME, MiniDrive
from prune2drive.models.adapter import Adapter
from prune2drive.pruning.surgery import hooks as engine
from prune2drive.tasks import coverage

pytestmark = pytest.mark.slow  # whole runs


KEEP = "ratios.keep=0.2"


def run(folder: Path, *overrides: str) -> float:
    return coverage.run(
        runs.configuration(f"folder={folder}", "task=coverage", runs.LIVELY, *runs.SMALL, KEEP, *overrides)
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("coverage")
    assert run(folder, "pictures=1") == runs.read(folder, "metrics.json")["coverage/objects"]
    return folder


def test_it_finds_what_an_evaluation_finds(finished, tmp_path):
    runs.run(tmp_path, KEEP)
    ours, theirs = runs.rows(finished), runs.rows(tmp_path)
    for found in ("id", "kept", "objects", "stages", "flops", "text_tokens"):
        assert [getattr(row, found) for row in ours] == [getattr(row, found) for row in theirs]
    ours, theirs = runs.read(finished, "metrics.json"), runs.read(tmp_path, "metrics.json")
    shared = {key for key in theirs if key.startswith(("coverage/", "tokens/", "flops/"))}
    assert {key: ours[key] for key in shared} == {key: theirs[key] for key in shared}
    assert not {"score", "accuracy", "exact_match", "time/prefill_ms"} & set(ours)


def test_the_run_folder(finished):
    assert all(row.answer is None and row.error is None and row.new_tokens == 0 for row in runs.rows(finished))
    run = runs.read(finished, "run.json")
    assert run["counts"] == {"planned": 8, "done": 8, "failed": 0} and run["status"] == "finished"
    assert run["config"]["task"] == {"_target_": "prune2drive.tasks.coverage.run", "per": "question"}
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "objects that keep a token" in page and "By camera" in page and "right" not in page.partition("<style>")[0]


@pytest.mark.parametrize("pruner", ["tfps", "fastv", "none"])
def test_layers_behind_the_pruners_do_not_run(pruner, tmp_path, monkeypatch):
    ran = []
    load = runs.Lively.load

    def watched(self):
        model = load(self)
        for index, layer in enumerate(model.get_decoder().layers):
            layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        return model

    monkeypatch.setattr(runs.Lively, "load", watched)
    run(tmp_path, f"pruner={pruner}", "batch_size=8")
    first = {"tfps": 1, "fastv": 2, "none": 0}[pruner]
    assert set(ran) == set(range(first))


def test_all_tokens_are_the_bound(tmp_path):
    run(tmp_path, "full=true")
    metrics = runs.read(tmp_path, "metrics.json")
    assert metrics["full/coverage/objects"] > metrics["coverage/objects"] > 0
    assert (tmp_path / "full" / "metrics.json").is_file()


def test_one_question_a_frame(tmp_path):
    size = 2 * PER_FRAME + 1
    run(tmp_path, f"dataset.size={size}", "task.per=frame")
    dataset = MiniDrive(size=size)
    assert [row.id for row in runs.rows(tmp_path)] == [dataset.ids[index] for index in (0, PER_FRAME, 2 * PER_FRAME)]
    assert runs.read(tmp_path, "run.json")["counts"]["planned"] == 3
    # T-FPS at the first layer does not see the question, so each frame's other questions find the same.
    run(tmp_path / "all", f"dataset.size={2 * PER_FRAME}")
    run(tmp_path / "first", f"dataset.size={2 * PER_FRAME}", "task.per=frame")
    every, first = (runs.read(tmp_path / name, "metrics.json") for name in ("all", "first"))
    assert every["coverage/objects"] == pytest.approx(first["coverage/objects"])
    assert every["coverage/objects_stderr"] == pytest.approx(first["coverage/objects_stderr"])


def test_resuming(finished, tmp_path, monkeypatch):
    lines = (finished / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "predictions.jsonl").write_bytes(b"".join(lines[:5]) + lines[5][:30])
    (tmp_path / "run.json").write_bytes((finished / "run.json").read_bytes())
    asked = []
    collate = Adapter.collate
    monkeypatch.setattr(
        Adapter, "collate", lambda self, rows, **options: asked.extend(rows) or collate(self, rows, **options)
    )
    run(tmp_path, f"resume={tmp_path}", "pictures=1")
    assert [sample.id for sample in asked] == MiniDrive(size=8).ids[5:]
    assert (tmp_path / "predictions.jsonl").read_bytes() == (finished / "predictions.jsonl").read_bytes()
    assert runs.without_costs(runs.read(tmp_path, "metrics.json")) == runs.without_costs(
        runs.read(finished, "metrics.json")
    )


def test_another_tasks_run_is_not_gone_on_with(finished, tmp_path):
    with pytest.raises(InputError, match="task was .*coverage.*, now .*evaluate"):
        runs.run(finished, KEEP, f"resume={finished}")


def test_without_annotated_objects(tmp_path, monkeypatch, caplog):
    getitem = MiniDrive.__getitem__

    def bare(self, index):
        sample = getitem(self, index)
        return type(sample)(**{**vars(sample), "objects": ()})

    monkeypatch.setattr(MiniDrive, "__getitem__", bare)
    assert math.isnan(run(tmp_path))
    assert "these questions come without annotated objects" in caplog.text
    assert runs.read(tmp_path, "metrics.json")["tokens/visual_kept"] == 6 * 13


def test_the_model_is_left_as_it_was(tmp_path):
    run(tmp_path)
    assert not engine._ACTIVE and torch.is_grad_enabled()
