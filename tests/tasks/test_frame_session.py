"""Runs of one process that differ in their ratios only: the same answers, and no work done twice."""

from pathlib import Path

import pytest
import torch
from helpers import runs
from omegaconf import OmegaConf

from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.models.adapter import Adapter
from prune2drive.tasks import process_cache

pytestmark = pytest.mark.slow  # whole runs


KEEPS = (0.3, 0.05, 0.3)
TRIAL = ("dataset.size=12", "batch_size=5", "generation.max_new_tokens=4")


@pytest.fixture(autouse=True)
def nothing_from_other_tests():
    process_cache.clear()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a run of these options finds that shares nothing; each is made once."""
    root, found = tmp_path_factory.mktemp("alone"), {}

    def tell(*options: str) -> list[tuple]:
        if options not in found:
            process_cache.clear()
            runs.run(root / str(len(found)), *options)
            found[options] = told(root / str(len(found)))
        return found[options]

    return tell


def told(folder: Path) -> list[tuple]:
    """What a run found, but for its costs."""
    return [(row.id, row.answer, row.new_tokens, row.kept, row.stages, row.flops) for row in runs.rows(folder)]


@pytest.mark.parametrize(
    "options",
    [
        "pruner=tfps",
        "pruner=fastv",
        "pruner=tfps pruner.layer=0",
        "pruner=random prefix_cache=folder prefix_cache.folder=FOLDER",
    ],
)
def test_answers_are_those_of_runs_of_their_own(tmp_path, options, alone):
    common = (*TRIAL, "model._target_=helpers.runs.Speaking")
    store = ("prefix_cache=memory", *options.replace("FOLDER", str(tmp_path / "store")).split())
    for number, keep in enumerate(KEEPS):
        runs.run(tmp_path / str(number), *common, f"ratios.keep={keep}", *store)
    method = [option for option in options.split() if option.startswith("pruner")]
    for number, keep in enumerate(KEEPS):
        assert told(tmp_path / str(number)) == alone(*common, f"ratios.keep={keep}", *method)
    assert told(tmp_path / "0") != told(tmp_path / "1")


def test_later_runs_draw_encode_and_load_nothing(tmp_path, monkeypatch):
    runs.run(tmp_path / "1", *TRIAL, "prefix_cache=memory")
    loaded = runs.Lively.loaded

    def fail(*args, **kwargs):
        raise AssertionError("done again")

    monkeypatch.setattr(MiniDrive, "__getitem__", fail)
    monkeypatch.setattr(Adapter, "collate", fail)
    runs.run(tmp_path / "2", *TRIAL, "prefix_cache=memory", "ratios.keep=0.4")
    assert runs.Lively.loaded == loaded
    metrics = runs.read(tmp_path / "2", "metrics.json")
    assert metrics["flops/vision"] == runs.read(tmp_path / "1", "metrics.json")["flops/vision"]
    assert not [key for key in metrics if key.startswith("time/")], "times of a part of the work would mislead"


def test_a_cut_elsewhere_finds_no_states_but_the_same_answers(tmp_path, alone):
    for number, layer in enumerate((1, 2, 1, 2)):
        runs.run(tmp_path / f"{number}", *TRIAL, "prefix_cache=memory", f"pruner.layer={layer}", "ratios.keep=0.2")
    for number, layer in enumerate((1, 2)):
        expected = alone(*TRIAL, f"pruner.layer={layer}", "ratios.keep=0.2")
        assert told(tmp_path / f"{number}") == told(tmp_path / f"{number + 2}") == expected


@pytest.mark.parametrize("limit_mb", [0.1, 1, 2])
def test_a_store_that_is_full_leaves_the_rest_to_be_computed(tmp_path, limit_mb, alone):
    options = (*TRIAL, "prefix_cache=memory", f"prefix_cache.limit_gb={limit_mb / 1000}")
    for number, keep in enumerate(KEEPS):
        runs.run(tmp_path / f"{number}", *options, f"ratios.keep={keep}")
    many, few = (alone(*TRIAL, f"ratios.keep={keep}") for keep in KEEPS[:2])
    assert told(tmp_path / "1") == few != told(tmp_path / "2") == many


def test_another_model_or_dataset_shares_nothing(tmp_path, alone):
    others = ("seed=0", "dataset.difficulty=dense", "model.seed=1", "generation.max_new_tokens=2")
    for number, other in enumerate(others):
        runs.run(tmp_path / f"{number}", *TRIAL, other, "prefix_cache=memory")
    for number, other in list(enumerate(others))[1:]:
        assert told(tmp_path / f"{number}") == alone(*TRIAL, other)


def test_an_interrupted_run_goes_on_from_the_store(tmp_path, monkeypatch):
    options = (*TRIAL, "prefix_cache=memory")
    runs.run(tmp_path / "1", *options)
    rows = (tmp_path / "1" / "predictions.jsonl").read_text().splitlines(keepends=True)
    expected = told(tmp_path / "1")
    (tmp_path / "1" / "predictions.jsonl").write_text("".join(rows[:3]))
    runs.resume(tmp_path / "1", *options)
    assert told(tmp_path / "1") == expected


def test_recipes_name_what_files_looked_like(tmp_path):
    file = tmp_path / "weights"
    file.write_text("1")
    node = OmegaConf.create({"checkpoint": str(tmp_path), "other": 3})
    before = process_cache.fingerprint_config(node)
    assert process_cache.fingerprint_config(node) == before
    torch.save({}, file)
    assert process_cache.fingerprint_config(node) != before


def test_the_latest_of_a_kind_is_kept():
    made = []
    for recipe in ("a", "a", "b", "a"):
        process_cache.reuse_or_build("kind", recipe, lambda: made.append(1) or object())
    assert len(made) == 3


def test_methods_that_read_the_vision_tower_find_it_remembered(tmp_path, monkeypatch):
    options = (*TRIAL, "pruner=vispruner", "prefix_cache=memory")
    runs.run(tmp_path / "1", *options, "ratios.keep=0.3")
    monkeypatch.setattr(Adapter, "collate_texts", None)
    runs.run(tmp_path / "2", *options, "ratios.keep=0.1")
    process_cache.clear()
    monkeypatch.undo()
    runs.run(tmp_path / "cold", *TRIAL, "pruner=vispruner", "ratios.keep=0.1")
    assert told(tmp_path / "2") == told(tmp_path / "cold")


def test_a_limit_that_holds_nothing_is_refused_before_the_model_is_loaded(tmp_path):
    loaded = runs.Lively.loaded
    with pytest.raises(InputError, match="limit_gb=-1"):
        runs.run(tmp_path / "run", "prefix_cache=memory", "prefix_cache.limit_gb=-1")
    assert runs.Lively.loaded == loaded


def test_settings_of_a_checkpoint_hold_for_the_questions_of_a_frame(tmp_path):
    options = ("generation.max_new_tokens=6", "ratios.keep=0.5")
    for name, model in {"plain": "Lively", "varied": "Varied", "alone": "Varied"}.items():
        way = "question" if name == "alone" else "frame"
        runs.run(tmp_path / name, *options, f"model._target_=helpers.runs.{model}", f"batching={way}")
    assert runs.answers(tmp_path / "varied") == runs.answers(tmp_path / "alone") != runs.answers(tmp_path / "plain")


def test_objects_are_counted_for_each_question_where_questions_keep_different_tokens(tmp_path):
    for way in ("frame", "question"):
        runs.run(tmp_path / way, "pruner=fastv", "ratios.keep=0.3", f"batching={way}")
    found, expected = ([row.objects for row in runs.rows(tmp_path / way)] for way in ("frame", "question"))
    assert found == expected and len(set(map(str, found))) > 1
