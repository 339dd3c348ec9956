"""Rooms in one order: a folder of the package imports only folders above it."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "prune2drive"
ORDER = (  # folders of one line know nothing of each other; files beside the folders are the vocabulary
    {"families", "formats"},
    {"data", "models", "pruning", "metrics"},
    {"minidrive", "results", "integrations"},
    {"report"},
    {"tasks"},
    {"search"},
)
WITHIN = {"pruning": ({""}, {"methods", "surgery"}, {"reuse"})}  # the same for the folders of a room; "" is its files
OPEN = {"pruning/__init__.py"}  # gives its room's names to users
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "configs" not in path.relative_to(PACKAGE).parts)


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def rooms_of(names: set[str], room: str = "") -> set[str]:
    """The folders of the package, or of one of its rooms, that these modules lie in; "" for files beside them."""
    inside = f"{PACKAGE.name}.{room}." if room else f"{PACKAGE.name}."
    parts = {name.removeprefix(inside).split(".")[0] for name in names if name.startswith(inside)}
    return {part if (PACKAGE / room / part).is_dir() else "" for part in parts}


def above(order: tuple[set[str], ...], room: str) -> set[str]:
    """The rooms that a room may import, itself included."""
    place = next(index for index, rooms in enumerate(order) if room in rooms)
    return {room}.union(*order[:place])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it(path):
    place, names = path.relative_to(PACKAGE), imported(path)
    room = place.parts[0] if len(place.parts) > 1 else ""
    order = ({""}, *ORDER)
    if room or place.name != "__init__.py":
        assert rooms_of(names) <= above(order, room)
    if room in WITHIN and str(place) not in OPEN:
        assert rooms_of(names, room) <= above(WITHIN[room], place.parts[1] if len(place.parts) > 2 else "")


def test_every_folder_has_its_place():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders - {"configs"} == set().union(*ORDER)


def test_there_are_no_circles():
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES}
    graph = {name: imported(path) & modules.keys() - {name} for name, path in modules.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)  # raises where there is one


def test_selection_is_pure():
    names = {name.split(".")[0] for name in imported(PACKAGE / "pruning/selection.py")}
    assert names <= {"torch", *sys.stdlib_module_names}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent.name == "methods"], ids=lambda path: path.stem
)
def test_methods_know_no_model(path):
    names = {name.split(".")[0] for name in imported(path)}
    assert "transformers" not in names


def test_relative_imports_are_seen(tmp_path, monkeypatch):
    package = tmp_path / "prune2drive"
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    for room in ("data", "models", "metrics", "report"):
        (package / room).mkdir(parents=True)
    path = package / "data/a.py"
    path.write_text(
        "def f():\n    from ..models import adapter\nfrom prune2drive import metrics\nimport prune2drive.report.x\n"
    )
    assert rooms_of(imported(path)) == {"models", "metrics", "report"}
