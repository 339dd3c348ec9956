"""What a run leaves for W&B, read back from the files that `wandb sync` uploads."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import wandb
from helpers import dashboards, runs
from helpers.wandb_files import read, read_file
from helpers.wandb_server import environment, serve
from PIL import Image

from prune2drive.errors import InputError
from prune2drive.report import wandb_workspace
from prune2drive.report.wandb import RunLogger
from prune2drive.results.provenance import git_state

pytestmark = pytest.mark.slow  # whole runs


OPTIONS = ("logger=wandb", "dataset.size=5", "logger.pictures=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Runs of one process: `first`, `failed`, `second`; `home` was the home folder and `work` the current one.

    `first` has a run with all tokens beside it, and another method's options have their own names; `second` is
    uploaded, to a server that refuses it.
    """
    folder = tmp_path_factory.mktemp("wandb")
    wandb.teardown()  # else the service of an earlier test would be named again when the environment is restored
    with pytest.MonkeyPatch.context() as patched, serve(403) as server:
        for name in [name for name in os.environ if name.startswith("WANDB_") or name.startswith("XDG_")]:
            patched.delenv(name)
        for name in ("home", "work"):
            (folder / name).mkdir()
        patched.setenv("HOME", str(folder / "home"))
        patched.setenv("WANDB_SILENT", "true")
        patched.chdir(folder / "work")
        timed = ("full=true", "latency.questions=1", "latency.warm_up=0")
        runs.run(folder / "first", *OPTIONS, *timed, "pruner=random", "ratios.keep=0.25", "logger.artifact_mb=0.01")
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(runs.Lively, "generate", lambda *_, **__: (_ for _ in ()).throw(InputError("broken")))
            with pytest.raises(InputError, match="broken"):
                runs.run(folder / "failed", *OPTIONS, "pruner=none")
        wandb.teardown()  # W&B reads its key once
        for name, value in environment(server).items():
            patched.setenv(name, value)
        with Lines() as said:
            runs.run(folder / "second", *OPTIONS, "logger.name=mine", "logger.tags=[ours]", "logger.offline=false")
        (folder / "said").write_text("\n".join(said.lines))
        for name in environment(server):
            patched.delenv(name)
        runs.resume(folder / "failed", *OPTIONS, "pruner=none")
        wandb.teardown()
    return folder


class Lines(logging.Handler):
    """The warnings that are logged in a context."""

    def __enter__(self) -> "Lines":
        self.lines: list[str] = []
        logging.getLogger("prune2drive.report").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("prune2drive.report").removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(scope="module", params=["first", "second"])
def folder(request, place) -> Path:
    return place / request.param


def table(found, name: str) -> list[dict]:
    """The rows of a table that was logged, by column."""
    content = json.loads((found.files / found.history[name]["path"]).read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_each_run_is_one_of_its_own(place):
    first, second = read(place / "first"), read(place / "second")
    assert first.exit_code == second.exit_code == 0
    assert first.run.run_id != second.run.run_id
    assert first.run.project == second.run.project == "prune2drive"
    assert (first.run.display_name, second.run.display_name) == ("random-uniform-0.25", "mine")
    assert (first.run.run_group, first.run.job_type) == ("minidrive2-tiny", "evaluate")


def test_tags_say_what_runs_are_filtered_by(place):
    commit = git_state()["commit"]
    code = [commit[:7]] if commit else []
    assert list(read(place / "first").run.tags) == ["minidrive2", "tiny", "random", "uniform-0.25", *code, "keeps 25%"]
    assert list(read(place / "second").run.tags) == ["ours", *code, "keeps 9%"], "6 of 64 tokens"


def test_a_resumed_run_goes_on_as_the_same_run(place):
    """Of a method that drops nothing, whose name and tags have no ratio."""
    before, after = map(read_file, sorted((place / "failed").rglob("*.wandb")))
    assert before.run.run_id == after.run.run_id and (before.exit_code, after.exit_code) == (1, 0)
    assert after.run.display_name == "none"
    assert list(after.run.tags)[:3] == ["minidrive2", "tiny", "none"] and list(after.run.tags)[-1] == "keeps 100%"
    assert "score" not in before.summary and "score" in after.summary


def test_all_files_are_in_the_run_folder(place):
    assert sorted(each.name for each in place.iterdir()) == ["failed", "first", "home", "said", "second", "work"]
    assert list((place / "work").iterdir()) == []
    assert [file for file in (place / "home").rglob("*") if "wandb" in str(file.relative_to(place))] == []


def test_the_configuration(folder):
    run, config = runs.read(folder, "run.json"), read(folder).config
    for key in ("config", "choices", "git", "versions", "command", "dataset"):
        assert config[key] == run[key], key


def test_every_metric_is_in_the_summary_and_every_one_of_its_own_has_a_chart(folder):
    metrics, found = runs.read(folder, "metrics.json"), read(folder)
    assert len(metrics) > 50
    assert {key: found.summary[key] for key in metrics} == pytest.approx(metrics)
    charted = {key for key, value in found.history.items() if isinstance(value, int | float) and key[0] != "_"}
    charted -= {"trainer/global_step"}  # Lightning's
    assert charted == {key for key in metrics if not key.endswith(("_n", "_stderr"))}
    assert {key: found.history[key] for key in charted} == pytest.approx({key: metrics[key] for key in charted})


def test_a_row_of_the_table_says_what_was_answered(place):
    pruned = {row.id: row for row in runs.rows(place / "first")}
    full = {row.id: row for row in runs.rows(place / "first" / "full")}
    rows = table(read(place / "first"), "answers")
    assert {row["id"] for row in rows} == set(pruned)
    for row in rows:
        before, after = full[row["id"]], pruned[row["id"]]
        for name, value in {
            "type": after.kind,
            "question": after.question,
            "reference": after.reference,
            "answer": after.answer,
            "answer, all tokens": before.answer,
            "score": float(after.answer == after.reference),
            "score, all tokens": float(before.answer == before.reference),
            "kept": sum(after.kept_counts.values()),
            "of": 384,
            "error": None,
            **after.kept_counts,
        }.items():
            assert row[name] == value, name


def test_the_answers_of_a_run_alone(place):
    columns = table(read(place / "second"), "answers")[0].keys()
    assert "answer" in columns and not [name for name in columns if "all tokens" in name]


def test_charts(place):
    found, metrics = read(place / "first"), runs.read(place / "first", "metrics.json")
    kinds = table(found, "question types_table")
    rows = runs.rows(place / "first")
    assert {row["question type"]: row["n"] for row in kinds} == {
        kind: sum(row.kind == kind for row in rows) for kind in {row.kind for row in rows}
    }
    cameras = {row["camera"]: row["kept"] for row in table(found, "tokens per camera_table")}
    assert cameras == dict.fromkeys(rows[0].kept_counts, 16)
    spent = {row["part"]: row["ms"] for row in table(found, "latency_table")}
    assert spent["prefill ms, alone"] == metrics["time/prefill_ms"]
    assert spent["prefill ms, alone, all tokens"] == metrics["full/time/prefill_ms"]


def test_the_cameras_of_the_first_answers_have_a_mask_each(folder):
    found, method = read(folder), runs.read(folder, "run.json")["choices"]["pruner"]
    shown = found.history["kept tokens"]
    assert shown["_type"] == "images/separated" and shown["count"] == 2
    rows = {row.id: row for row in runs.rows(folder)}
    first = [rows[answer["id"]] for answer in table(found, "answers")[:2]]
    assert shown["captions"] == [f"{row.question} -> {row.answer}" for row in first]
    for row, masks, name in zip(first, shown["all_masks"], shown["filenames"], strict=True):
        assert set(masks) == {f"{camera} {method}" for camera in row.kept}
        assert np.array(Image.open(found.files / name)).std() > 10, "photos are drawn"
        for camera, kept in row.kept_counts.items():
            mask = np.array(Image.open(found.files / masks[f"{camera} {method}"]["path"]))
            sizes = np.bincount(mask.ravel(), minlength=3)
            assert sizes[1] / (sizes[1] + sizes[2]) == pytest.approx(kept / row.full_counts[camera], abs=1e-3)
            assert sizes[1:].sum() == pytest.approx(mask.size / len(row.kept), rel=0.05), "the mask is of one camera"


def test_the_run_folder_s_files(place):
    files = {name: read(place / name).artifacts["run"] for name in ("first", "second")}
    assert files["second"] == {"run.json", "metrics.json", "predictions.jsonl", "report.html"}
    assert files["first"] < files["second"] and "report.html" not in files["first"], "larger than artifact_mb"


def test_the_dashboard_shows_what_runs_log(place):
    found = read(place / "first")
    dashboard = wandb_workspace.workspace("me", "cars", *wandb_workspace.logged([place / "first"]))
    shown = dashboards.sections(dashboard)
    del shown["Search"]
    assert len(shown) == 6 and all(names and names <= found.history.keys() for names in shown.values())
    for name, columns in dashboards.columns(dashboard).items():
        assert name not in found.history or columns <= table(found, name)[0].keys()
    pinned = dashboard.runset_settings.pinned_columns[1:]
    assert len(pinned) >= 5 and {name.removeprefix("summary:") for name in pinned} <= found.summary.keys()


def test_online_without_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    before = runs.Lively.loaded
    with pytest.raises(InputError, match="logger.offline=false: no W&B key .*run `wandb login`"):
        runs.run(tmp_path / "run", *OPTIONS, "logger.offline=false")
    assert runs.Lively.loaded == before


def test_a_server_that_refuses_fails_no_run(place):
    said = (place / "said").read_text()
    assert said.startswith("W&B: ") and "403" in said and said.count("\n") == 0
    assert said.endswith(f"; the run is in files, to upload with: wandb sync {place / 'second/wandb'}")
    assert runs.read(place / "second", "run.json")["status"] == "finished"
    assert list(place.glob("second/wandb/offline-run-*/run-*.wandb"))


@pytest.mark.parametrize("error", [wandb.errors.CommError("no\nservice"), OSError("no space")])
def test_a_w_and_b_that_does_not_begin_fails_no_run(error, tmp_path, monkeypatch, caplog):
    begin = wandb.init

    def init(mode: str | None = None, **options):
        if mode != "disabled":
            raise error
        return begin(mode=mode, **options)

    monkeypatch.setattr(wandb, "init", init)
    logger = RunLogger(str(tmp_path))
    logger.experiment.log({"score": 1})
    logger.end()
    said = [record.getMessage() for record in caplog.records if record.name == "prune2drive.report.wandb"]
    assert said == [f"W&B: {' '.join(str(error).split())}; the run goes on without it"]
