"""What runs in one process share, so that a sweep or a search does not do again what no option of its runs changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_LATEST: dict[str, tuple[str, Any]] = {}


def latest(kind: str, recipe: str, make: Callable[[], Any]) -> Any:
    """The latest object of a kind, if it was made by this recipe; otherwise a new one takes its place."""
    if _LATEST.get(kind, ("",))[0] != recipe:
        _LATEST.pop(kind, None)  # before there are two
        _LATEST[kind] = (recipe, make())
    return _LATEST[kind][1]


def forget() -> None:
    """Lets go of all of them."""
    _LATEST.clear()


def recipe(node: DictConfig) -> str:
    """A configuration as text, with the times at which files and folders that it names last changed."""
    content = OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    return json.dumps([content, sorted(_changed(content))], sort_keys=True, default=str)


def _changed(content: Any) -> Iterator[tuple[str, int]]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from _changed(each)
    elif isinstance(content, str) and 0 < len(content) < 4096 and "\n" not in content:
        path = Path(content).expanduser()
        if path.exists():
            for each in (path, *(path.iterdir() if path.is_dir() else ())):
                yield str(each), each.stat().st_mtime_ns
