"""Shards that are joined are the run that one process would have made."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import runs
from helpers.wandb_files import read

from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.tiny import Tiny
from prune2drive.results.selections import Selections
from prune2drive.tasks import coverage, merge

pytestmark = pytest.mark.slow  # whole runs


OPTIONS = ("dataset.size=25", "full=true", "pictures=2", "explorer=15", "batch_size=5")
SHARDS = (1, 2, 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of all shards; copy it before changing it."""
    folder = tmp_path_factory.mktemp("shards")
    for number in SHARDS:
        runs.run(part(folder, number), *OPTIONS, f"shard={number}/3")
    return folder


@pytest.fixture
def shards(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "shards")
    return tmp_path / "shards"


@pytest.fixture
def unloadable(monkeypatch):
    monkeypatch.setattr(Tiny, "load", lambda self: pytest.fail("a model was loaded"))


def part(folder: Path, number: int) -> Path:
    return folder / f"now_{number}-of-3"


def parts(folder: Path, *numbers: int) -> list[Path]:
    return [part(folder, number) for number in numbers or SHARDS]


def without_costs(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics, of the run without pruning too, in which the machine has no part."""
    return {key: value for key, value in metrics.items() if not {"time", "memory"} & set(key.split("/"))}


def change(folder: Path, **fields) -> None:
    file = folder / "run.json"
    file.write_text(json.dumps(runs.read(folder, "run.json") | fields))


def test_the_merged_run_is_the_whole_run(shards, whole, unloadable):
    merged = merge.merge(parts(shards, 3, 1, 2))
    assert merged == shards / "merged_now"
    for folder in ("", "full"):
        ours, theirs = merged / folder, whole / folder
        found, expected = (without_costs(runs.read(each, "metrics.json")) for each in (ours, theirs))
        assert found == expected and list(found) == list(expected)
        assert [(row.id, row.answer, row.kept) for row in runs.rows(ours)] == [
            (row.id, row.answer, row.kept) for row in runs.rows(theirs)
        ]
        run, other = runs.read(ours, "run.json"), runs.read(theirs, "run.json")
        for name in ("dataset", "counts", "status", "dtype", "ratios", "choices", "judge", "columns", "git"):
            assert run[name] == other[name]
        assert run["config"]["shard"] is None
        assert [(each["shard"], Path(each["folder"])) for each in run["parts"]] == [
            (f"{number}/3", part(shards, number) / folder) for number in SHARDS
        ]
    names = [sorted(file.name for file in (folder / "pictures").iterdir()) for folder in (merged, whole)]
    assert names[0] == names[1] and len(names[0]) == 2
    recorded = [[each["id"] for each in Selections(folder)] for folder in (merged, whole)]
    assert recorded[0] == recorded[1] and len(recorded[0]) == 15
    peaks = [runs.read(folder, "metrics.json")["memory/peak_mb"] for folder in parts(shards)]
    assert runs.read(merged, "metrics.json")["memory/peak_mb"] == max(peaks)


def test_a_merge_can_be_repeated_and_resumed(shards, unloadable):
    merged = merge.merge(parts(shards))
    before = (merged / "metrics.json").read_text()
    (merged / "metrics.json").unlink()
    merge.merge(parts(shards))
    assert (merged / "metrics.json").read_text() == before
    runs.resume(merged, *OPTIONS)
    assert (merged / "metrics.json").read_text() == before
    assert len(runs.read(merged, "run.json")["parts"]) == 3
    with pytest.raises(InputError, match="holds another run; choose another folder with --into"):
        merge.merge(parts(shards), part(shards, 1))


def test_failed_questions_are_not_tried_again(tmp_path, monkeypatch):
    bad = MiniDrive(size=20).ids[13]
    getitem = MiniDrive.__getitem__

    def broken(self, index):
        if self.ids[index] == bad:
            raise InputError("photo.jpg: no such image")
        return getitem(self, index)

    monkeypatch.setattr(MiniDrive, "__getitem__", broken)
    folders = [tmp_path / str(number) for number in (1, 2)]
    for number, folder in enumerate(folders, start=1):
        runs.run(folder, "dataset.size=20", "on_error=skip", f"shard={number}/2")
    merged = merge.merge(folders, tmp_path / "all")
    assert runs.read(merged, "run.json")["counts"] == {"planned": 20, "done": 19, "failed": 1}


def test_coverage_is_merged_too(tmp_path):
    def run(folder, *more):
        options = ("task=coverage", "task.per=frame", runs.LIVELY, *runs.BARE, "dataset.size=25", *more)
        coverage.run(runs.configuration(f"folder={folder}", *options))

    run(tmp_path / "whole")
    for number in (1, 2):
        run(tmp_path / str(number), f"shard={number}/2")
    merged = merge.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    found, expected = (runs.read(folder, "metrics.json") for folder in (merged, tmp_path / "whole"))
    assert runs.without_costs(found) == runs.without_costs(expected)
    assert runs.read(merged, "run.json")["dataset"] == runs.read(tmp_path / "whole", "run.json")["dataset"]


def test_a_shard_is_resumed_as_itself(shards):
    folder = part(shards, 2)
    lines = (folder / "predictions.jsonl").read_text().splitlines(keepends=True)
    (folder / "predictions.jsonl").write_text("".join(lines[:7]))
    change(folder, status="running", command="run.py shard=2/3 resume=old")
    again = rf"{folder}: shard 2/3 is not finished; go on with: run.py shard=2/3 resume={folder}$"
    with pytest.raises(InputError, match=again):
        merge.merge(parts(shards))
    with pytest.raises(InputError, match="shard was 2/3, now 3/3"):
        runs.resume(folder, *OPTIONS, "shard=3/3")
    runs.resume(folder, *OPTIONS, "shard=2/3")
    assert [row.id for row in runs.rows(folder)] == MiniDrive(size=25).ids[12:24]
    merge.merge(parts(shards))


def test_parts_that_are_no_run_are_refused(shards, whole, unloadable):
    cases = [
        (parts(shards, 1, 3), "shards are missing: 2/3; run them, or add their folders"),
        (parts(shards, 1), "shards are missing: 2/3, 3/3; "),
        (parts(shards, 1, 2, 3, 2), f"shard 2/3 is there more than once, in {part(shards, 2)} and {part(shards, 2)}"),
        ([*parts(shards, 1, 2), whole], f"{whole}: not a shard, but a whole run"),
        ([*parts(shards, 1, 2), shards], f"{shards}/run.json: no such file; give the run folders of all shards"),
        ([], "no folders; give"),
    ]
    for folders, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            merge.merge(folders)
        assert "\n" not in str(caught.value)
    assert not (shards / "merged_now").exists()


CHANGES = [
    (("ratios", "keep"), 0.5, "ratios.keep is 0.1 and 0.5"),
    (("pruner", "_target_"), "a.b.Other", r"pruner is \w+.TFPS and b.Other"),
    (("dataset", "size"), 26, "dataset.size is 25 and 26"),
    (("seed",), 1, "seed is 0 and 1"),
    (("full",), False, "full is True and False"),
]


@pytest.mark.parametrize(("path", "value", "message"), CHANGES, ids=[".".join(path) for path, *_ in CHANGES])
def test_mixed_configurations_are_refused(shards, path, value, message, unloadable):
    config = runs.read(part(shards, 3), "run.json")["config"]
    holder = config
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = value
    change(part(shards, 3), config=config)
    with pytest.raises(InputError, match=f"^{part(shards, 1)} and {part(shards, 3)}: different runs, {message}$"):
        merge.merge(parts(shards))


def test_other_questions_types_and_counts_are_refused(shards, unloadable):
    third = part(shards, 3)
    run = runs.read(third, "run.json")
    for fields, message in (
        ({"dataset": run["dataset"] | {"whole": {"fingerprint": "x", "size": 25}}}, "other questions or images"),
        ({"dataset": run["dataset"] | {"shard": "3/4"}}, "parts of different runs, shard=1/3 and shard=3/4"),
        ({"dtype": "bfloat16"}, "the weights had different types: float32 in .*, bfloat16 in"),
        ({"judge": {"model": "m"}}, "different runs, judge is null and"),
        ({"format": 1}, "written by another version"),
    ):
        change(third, **fields)
        with pytest.raises(InputError, match=message):
            merge.merge(parts(shards))
        change(third, **run)


def test_a_row_too_few_is_named(shards, unloadable):
    file = part(shards, 2) / "predictions.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match=f"^{part(shards, 2)}: 11 rows for 12 questions; run shard 2/3 again$"):
        merge.merge(parts(shards))


def test_the_command_line(shards, whole, capsys, unloadable):
    with pytest.raises(SystemExit) as stop:
        merge.main([str(whole)])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(f"error: {whole}: not a shard")
    merge.main([*map(str, parts(shards)), "--into", str(shards / "all")])
    assert "25 of 25 questions answered" in capsys.readouterr().out
    assert (shards / "all" / "report.html").is_file()


def test_wandb_tells_shards_apart(tmp_path, monkeypatch):
    for name, value in (("HOME", str(tmp_path)), ("WANDB_SILENT", "true")):
        monkeypatch.setenv(name, value)
    folders = [tmp_path / str(number) for number in (1, 2)]
    for number, folder in enumerate(folders, start=1):
        runs.run(folder, "dataset.size=20", "logger=wandb", f"shard={number}/2")
    merged = merge.merge(folders, tmp_path / "all")
    shown = [(read(folder).run.display_name, read(folder).run.run_group) for folder in (*folders, merged)]
    group = "minidrive2-tiny-tfps-uniform-0.1"
    assert shown == [
        ("tfps-uniform-0.1 1/2", group),
        ("tfps-uniform-0.1 2/2", group),
        ("tfps-uniform-0.1", "minidrive2-tiny"),
    ]


@pytest.mark.parametrize("shard", ["17/16", "a", "3"])
def test_bad_shards_are_refused_before_anything_is_read(shard, tmp_path):
    with pytest.raises(InputError, match=f"^shard={shard}: "):
        runs.run(tmp_path / "run", f"shard={shard}", "dataset._target_=no.such.Dataset")


def test_more_shards_than_frames_are_refused_before_the_model_is_loaded(tmp_path, unloadable):
    with pytest.raises(InputError, match="^shard=1/5: the 40 questions are about 4 frames"):
        runs.run(tmp_path / "run", "shard=1/5", "dataset.size=40")


def test_shards_started_in_one_second_have_folders_of_their_own():
    folders = [runs.configuration(f"shard={number}/2", "folder=${hydra:run.dir}").folder for number in (1, 2)]
    assert folders[0].endswith("_1-of-2") and folders[1].endswith("_2-of-2")
