"""The wheel, installed away from the clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import matplotlib
import pytest
from helpers import runs

pytestmark = pytest.mark.slow
SOURCES = (
    "prune2drive",
    "hydra_plugins",
    "configs",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
)


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy without network, so that nothing is left in the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = runs.REPOSITORY / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(source, copy)
    pip("wheel", folder / "source", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip("install", wheel, "--no-deps", "--no-index", "--target", folder)
    return folder


def python(installed: Path, folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess:
    """Runs Python in a folder with the installed wheel and its dependencies, but without what .pth files add.

    An editable install of the clone is such a file, which -S leaves out.
    """
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    paths = [installed, *dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # else the new home has to be told which fonts there are
    }
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def empty(tmp_path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_everything_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = runs.REPOSITORY / "prune2drive"
    kinds = (".py", ".typed", ".yaml", ".html", ".css", ".json", ".jinja", ".safetensors", ".md")
    ours = [path for path in package.rglob("*") if path.suffix in kinds or path.name == "py.typed"]
    expected = {str(path.relative_to(runs.REPOSITORY)) for path in ours}
    expected |= {f"prune2drive/configs/{path.relative_to(runs.CONFIGS)}" for path in runs.CONFIGS.rglob("*.yaml")}
    expected |= {"prune2drive/py.typed", "hydra_plugins/prune2drive_search/sweeper.py"}
    assert expected <= names, sorted(expected - names)


def test_the_command_runs_in_an_empty_folder(installed, empty):
    code = "import importlib.util, sys; print(importlib.util.find_spec('prune2drive').origin, *sys.path, sep='\\n')"
    origin, *paths = python(installed, empty, "-c", code).stdout.splitlines()
    assert Path(origin) == installed / "prune2drive/__init__.py" and str(runs.REPOSITORY) not in paths

    options = (
        "pruner=tfps",
        "ratios=adaptive",
        "dataset.size=2",
        "latency.questions=1",
        "full=false",
        "hydra.run.dir=outputs/run",
    )
    done = python(installed, empty, installed / "bin/prune2drive", *options)
    said = [line for line in done.stderr.splitlines() if line and not line.startswith("Loading weights: ")]
    assert done.returncode == 0 and not said, done.stderr
    assert "2 of 2 questions answered" in done.stdout
    assert [path.name for path in empty.iterdir()] == ["outputs"]
    assert not [path for path in (empty.parent / "home").rglob("*") if path.is_file()]
    run = runs.read(empty / "outputs/run", "run.json")
    assert run["command"].startswith("prune2drive pruner=tfps") and run["git"]["commit"] is None
    assert (empty / "outputs/run/report.html").is_file()


def test_the_search_is_installed_too(installed, empty):
    done = python(installed, empty, installed / "bin/prune2drive", "search=tpe", "search.trails=3", "-m")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: search.trails: no such option") and "search.trials?" in done.stderr
