"""Samples that cannot be read, collated or answered, and ids that are no file names."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import PER_FRAME as ASKED
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.models.adapter import Adapter

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture(scope="module")
def drivelm(tmp_path_factory) -> Path:
    """Two frames of MiniDrive as DriveLM files."""
    folder = tmp_path_factory.mktemp("drivelm")
    MiniDrive(size=2 * ASKED).export(folder)
    return folder


@pytest.fixture
def broken(drivelm, tmp_path) -> Path:
    """A copy of the same files, to spoil."""
    return Path(shutil.copytree(drivelm, tmp_path / "drivelm"))


def second_frames_image(folder: Path) -> Path:
    return sorted((folder / "nuscenes/samples/CAM_BACK").iterdir())[1]


def test_skip_records_and_leaves_out_bad_samples(broken, tmp_path, drivelm):
    bad = second_frames_image(broken)
    bad.write_bytes(b"no image")
    runs.ask(tmp_path / "run", broken, "on_error=skip", "batch_size=4")
    rows = runs.rows(tmp_path / "run")
    failed = [row for row in rows if row.error]
    assert (
        len(rows) == 2 * ASKED
        and len(failed) == ASKED
        and {row.frame for row in failed} <= {"", "standard-test-000001-0"}
    )
    for row in failed:
        assert row.error.startswith(f"{bad}: cannot be read as an image") and row.answer is None and row.question
    assert runs.read(tmp_path / "run", "run.json")["counts"] == {"planned": 2 * ASKED, "done": ASKED, "failed": ASKED}
    metrics = runs.read(tmp_path / "run", "metrics.json")
    assert metrics["tokens/visual_kept_n"] == ASKED

    runs.ask(tmp_path / "good", drivelm, "batch_size=4")
    whole = [row for row in runs.rows(tmp_path / "good") if row.scene == rows[0].scene]
    assert [row.answer for row in whole] == [row.answer for row in rows if not row.error]


def test_an_item_without_its_answer_or_images(drivelm, tmp_path):
    scenes = json.loads((drivelm / "v1_1_train_nus.json").read_text())
    first, second = (frame for scene in scenes.values() for frame in scene["key_frames"].values())
    del first["QA"]["perception"][0]["A"], second["image_paths"]
    (tmp_path / "test_eval.json").write_text(json.dumps(scenes))
    options = (f"dataset.images={drivelm}/nuscenes", "task=evaluate")
    before = runs.Lively.loaded
    with pytest.raises(InputError, match=f"_0 has no answer, .*{ASKED + 1} such questions; on_error=skip"):
        runs.ask(tmp_path / "fail", tmp_path, *options)
    assert runs.Lively.loaded == before, "known before a model is loaded"
    runs.ask(tmp_path / "skip", tmp_path, *options, "on_error=skip")
    errors = [row.error for row in runs.rows(tmp_path / "skip")]
    assert "has no answer" in errors[0] and errors[1:ASKED] == [None] * (ASKED - 1)
    assert all("field 'image_paths'" in error for error in errors[ASKED:]) and len(errors) == 2 * ASKED


def test_skip_leaves_out_what_cannot_be_collated(tmp_path, monkeypatch):
    original = Adapter.chat
    bad = MiniDrive(size=8)[5]

    def chat(self, prompt):
        if prompt == bad.prompt:
            raise InputError("the prompt is too long")
        return original(self, prompt)

    monkeypatch.setattr(Adapter, "chat", chat)
    runs.run(tmp_path, "on_error=skip")
    rows = runs.rows(tmp_path)
    assert [row.error for row in rows] == [None] * 5 + ["the prompt is too long"] + [None] * 2
    assert (rows[5].id, rows[5].reference, rows[5].tags) == (bad.id, bad.reference, bad.tags)
    assert runs.read(tmp_path, "run.json")["counts"] == {"planned": 8, "done": 7, "failed": 1}
    assert runs.read(tmp_path, "metrics.json")["score_n"] == 7


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_bytes(b"\xff\xd8\xff")])
def test_fail_names_the_file(broken, tmp_path, spoil):
    bad = second_frames_image(broken)
    spoil(bad)
    before = runs.Lively.loaded
    with pytest.raises(InputError, match=re.escape(str(bad))) as caught:
        runs.ask(tmp_path / "run", broken, "batch_size=4")
    assert "\n" not in str(caught.value)
    if not bad.exists():
        assert runs.Lively.loaded == before, "known before a model is loaded"
    else:
        assert 0 < len(runs.rows(tmp_path / "run")) <= ASKED, "batches before it are on disk"


def test_every_question_failing(broken, tmp_path, caplog):
    for file in (broken / "nuscenes/samples/CAM_BACK").iterdir():
        file.unlink()
    score = runs.ask(tmp_path / "run", broken, "on_error=skip")
    assert math.isnan(score)
    assert runs.read(tmp_path / "run", "metrics.json") == {}
    assert runs.read(tmp_path / "run", "run.json")["counts"] == {"planned": 2 * ASKED, "done": 0, "failed": 2 * ASKED}
    assert f"none of the {2 * ASKED} questions could be answered" in caplog.text
    assert (tmp_path / "run" / "report.html").is_file()


def test_ids_that_are_no_file_names(drivelm, tmp_path):
    images = sorted((drivelm / "nuscenes").rglob("*.jpg"))[:1]
    ids = ["../../scene/frame_0", "x" * 300, ".", 'a:b?"<c>', "../../scene_frame_0", "\ud800"]
    turn = {"from": "human", "value": "What is there?"}
    entries = [{"id": name, "image": [str(images[0])], "conversations": [turn]} for name in ids]
    (tmp_path / "test_llama.json").write_text(json.dumps(entries))
    runs.ask(tmp_path / "run", tmp_path, f"dataset.images={drivelm}/nuscenes", "pictures=6")
    assert [row.id for row in runs.rows(tmp_path / "run")] == ids
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == len(ids)
    assert {file.name for file in tmp_path.iterdir()} == {"run", "test_llama.json"}
    assert (tmp_path / "run" / "report.html").is_file()
