"""Data moves one way: the parts share a vocabulary and know nothing of each other."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "prune2drive"
PARTS = ("data", "models", "pruning", "metrics", "search")
SHARED = {"sample", "mosaic", "errors", "visual_tokens", "vocabulary"}
MODULES = sorted(path for part in PARTS for path in (PACKAGE / part).rglob("*.py"))


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


def parts_of(path: Path) -> set[str]:
    """The parts and top-level modules of the package that a file imports."""
    return {name.split(".")[1] for name in imported(path) if name.startswith("prune2drive.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_sideways_import(path):
    assert parts_of(path) <= {path.relative_to(PACKAGE).parts[0], *SHARED}


@pytest.mark.parametrize("name", sorted(SHARED))
def test_the_vocabulary_knows_no_part(name):
    assert parts_of(PACKAGE / f"{name}.py") <= SHARED


def test_the_report_knows_no_part():
    for path in (PACKAGE / "report").rglob("*.py"):
        assert not parts_of(path) & {"evaluate", "train", *PARTS}


def test_selection_is_pure():
    names = {name.split(".")[0] for name in imported(PACKAGE / "pruning/selection.py")}
    assert names <= {"torch", *sys.stdlib_module_names}


SURGERY = {
    "__init__.py",
    "hooks.py",
    "engine.py",
    "sharing.py",
    "guards.py",
    "cut.py",
    "plan.py",
    "prompt.py",
    "ratios.py",
    "allocation.py",
    "budgeting.py",
    "looks.py",
    "rotary.py",
    "masks.py",
    "shadow.py",
    "prefix.py",
    "orders.py",
}


@pytest.mark.parametrize("path", sorted((PACKAGE / "pruning").glob("*.py")), ids=lambda path: path.name)
def test_only_the_hooks_touch_a_model(path):
    names = {name.split(".")[0] for name in imported(path)}
    assert ("transformers" in names) == (path.name in ("masks.py", "sharing.py", "clip.py"))
    if path.name not in SURGERY:
        assert not imported(path) & {f"prune2drive.pruning.{name.removesuffix('.py')}" for name in SURGERY}


def test_relative_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "prune2drive")
    path = tmp_path / "prune2drive/data/a.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "def f():\n    from ..models import adapter\nfrom prune2drive import metrics\nimport prune2drive.report.html\n"
    )
    assert parts_of(path) == {"models", "metrics", "report"}
