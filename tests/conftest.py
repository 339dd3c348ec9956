import logging
import os
import pickle
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from helpers import runs
from omegaconf import OmegaConf

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def drivelm_sample() -> Path:
    """The folder of the four-frame DriveLM sample: output.json, test_eval.json, ... and its images."""
    folder = Path(os.environ.get("PRUNE2DRIVE_SAMPLE") or REPOSITORY.parent / "shared/data/drivelm_sample")
    if not (folder / "test_eval.json").is_file():
        reason = f"no DriveLM sample in {folder}; set PRUNE2DRIVE_SAMPLE to the folder of test_eval.json"
        pytest.fail(reason) if os.environ.get("PRUNE2DRIVE_NEEDS_SAMPLE") == "1" else pytest.skip(reason)
    return folder


@pytest.fixture(scope="session", autouse=True)
def parsed_once():
    """Parses our configuration files, and Hydra's, once: a quarter of what composing a configuration takes."""
    load, parsed = OmegaConf.load, {}

    def cached(file):
        name = str(getattr(file, "name", file))
        if not name.startswith((str(runs.CONFIGS), sys.prefix)):
            return load(file)
        if name not in parsed:
            parsed[name] = pickle.dumps(load(file))
        return pickle.loads(parsed[name])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OmegaConf, "load", staticmethod(cached))
        yield


@pytest.fixture(scope="module", autouse=True)
def no_java_starts(request):
    """Scores captions without Java, whose start takes longer than a run; the metrics' own tests have it."""
    with nullcontext() if "metrics" in request.path.parts else runs.without_java():
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
