import gc
import logging
import os
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers import compositions, runs
from hypothesis import settings

from prune2drive.report import charts
from prune2drive.tasks import loop

REPOSITORY = Path(__file__).resolve().parents[1]
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # so that processes which tests start compile our modules once
gc.disable()  # imports and collection leave no garbage, but a million objects to look through
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def drivelm_sample() -> Path:
    """The folder of the four-frame DriveLM sample: output.json, test_eval.json, ... and its images."""
    folder = Path(os.environ.get("PRUNE2DRIVE_SAMPLE") or REPOSITORY.parent / "shared/data/drivelm_sample")
    if not (folder / "test_eval.json").is_file():
        reason = f"no DriveLM sample in {folder}; set PRUNE2DRIVE_SAMPLE to the folder of test_eval.json"
        pytest.fail(reason) if os.environ.get("PRUNE2DRIVE_NEEDS_SAMPLE") == "1" else pytest.skip(reason)
    return folder


@pytest.fixture(scope="session", autouse=True)
def composed_once():
    """Composing a configuration takes about as long as the smallest run."""
    with compositions.remembered():
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_parts():
    """Counts a vision tower's FLOPs in its first run alone, and saves charts for papers with a tenth of their dots.

    Tests of the counter make counters of their own.
    """
    count, counters = loop.VisionFlops, {}

    def cached(config):
        key = config.to_json_string()
        if key not in counters:
            counters[key] = count(config)
        return counters[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "VisionFlops", cached)
        patched.setattr(charts, "DPI", charts.DPI // 10)
        yield


@pytest.fixture(scope="module", autouse=True)
def weights_drawn_once(request):
    """Hands out copies of the tiny model's weights, whose drawing takes a quarter of a run; its own tests draw them."""
    with nullcontext() if "minidrive" in request.path.parts else runs.weights_remembered():
        yield


@pytest.fixture(scope="module", autouse=True)
def no_java_starts(request):
    """Scores captions without Java, whose start takes longer than a run; the metrics' own tests have it."""
    with nullcontext() if "metrics" in request.path.parts else runs.without_java():
        yield


@pytest.fixture
def no_charts():
    """Leaves the charts of pages out where a test is about something else."""
    with runs.without_charts():
        yield


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Runs the script in this process, in an empty folder; returns exit code, stdout and stderr."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(REPOSITORY / "run.py"), *arguments])
        code = 0
        try:
            runpy.run_path(str(REPOSITORY / "run.py"), run_name="__main__")
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    yield call
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def refusal(cli):
    """Runs the script, which must refuse its options in one line; returns the line without `error: `."""

    def call(*arguments: str) -> str:
        code, _, said = cli(*arguments)
        assert (code, said.count("\n")) == (2, 1) and said.startswith("error: "), said
        return said.removeprefix("error: ").rstrip("\n")

    return call


def pytest_collection_finish():
    """Lets the garbage collector look at what tests make alone, and rarely: it took a fifth of their time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
