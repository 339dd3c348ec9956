"""`prune2drive.evaluate`: the command, called from Python."""

import logging

import pytest
from helpers import runs

import prune2drive
from prune2drive.errors import InputError
from prune2drive.tasks import process_cache

pytestmark = pytest.mark.slow  # whole runs


OPTIONS = (runs.LIVELY, "model=tiny", "dataset.size=3", *runs.BARE, *runs.QUIET)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    process_cache.clear()
    monkeypatch.chdir(tmp_path)


def test_evaluate_returns_the_metrics_of_the_folder_it_leaves(tmp_path):
    handlers = logging.getLogger().handlers[:]
    metrics = prune2drive.evaluate([*OPTIONS, "pruner=tfps", "ratios.keep=0.25"])
    (folder,) = (tmp_path / "outputs/minidrive2/tiny/tfps").iterdir()
    assert metrics == runs.read(folder, "metrics.json") and metrics["tokens/visual_kept"] == 96
    assert {file.name for file in (folder / ".hydra").iterdir()} == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert len(runs.rows(folder)) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["outputs"]
    assert logging.getLogger().handlers == handlers


def test_evaluate_writes_where_it_is_told(tmp_path):
    prune2drive.evaluate([*OPTIONS, "task=coverage", f"hydra.run.dir={tmp_path}/run"])
    assert runs.read(tmp_path / "run", "run.json")["status"] == "finished"
    assert prune2drive.evaluate([*OPTIONS, "task=flops", f"hydra.run.dir={tmp_path}/flops"]) == {}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("ratios.kep=1", "ratios.kep: no such option; ratios has keep; did you mean ratios.keep?"),
        ("ratios.keep=2", "ratios.keep = 2 is outside"),
        ("resume=nowhere", "resume=nowhere: no such folder"),
        ("search=tpe", "a search is a multirun"),
        ("pruner=tfps,none", "pruner=tfps,none: has several values"),
    ],
)
def test_evaluate_raises_what_the_command_prints(option, message, tmp_path):
    with pytest.raises(InputError) as refused:
        prune2drive.evaluate([*OPTIONS, option])
    assert str(refused.value).startswith(message)


def test_evaluate_builds_everything_anew(tmp_path):
    before = runs.Lively.loaded
    for number in (1, 2):
        prune2drive.evaluate([*OPTIONS, "pruner=random", f"hydra.run.dir={tmp_path}/{number}"])
    assert runs.Lively.loaded == before + 2
    for number in (3, 4):
        prune2drive.evaluate([*OPTIONS, "pruner=random", "prefix_cache=memory", f"hydra.run.dir={tmp_path}/{number}"])
    assert runs.Lively.loaded == before + 3
