"""Objects that runs of a multirun in one process share: what the next configuration leaves as it was is built once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

_LATEST: dict[str, tuple[str, Any]] = {}


def reuse_or_build(kind: str, fingerprint: str, build: Callable[[], Any]) -> Any:
    """Returns the latest object of a kind where its fingerprint is the same; otherwise builds one in its place.

    Args:
        kind: the object's kind, such as `adapter`; one object of each is kept.
        fingerprint: what the object is made from.
        build: makes it.
    """
    if _LATEST.get(kind, ("",))[0] != fingerprint:
        _LATEST.pop(kind, None)  # before there are two
        _LATEST[kind] = (fingerprint, build())
    return _LATEST[kind][1]


def clear() -> None:
    """Drops all kept objects."""
    _LATEST.clear()


def fingerprint_config(node: DictConfig) -> str:
    """Returns a configuration as text, with the times at which files and folders that it names last changed."""
    content = OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    return json.dumps([content, sorted(_changes(content))], sort_keys=True, default=str)


def _changes(content: Any) -> Iterator[tuple[str, int]]:
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _changes(value)
    elif isinstance(content, str) and 0 < len(content) < 4096 and "\n" not in content:
        path = Path(content).expanduser()
        if path.exists():
            for file in (path, *(path.iterdir() if path.is_dir() else ())):
                yield str(file), file.stat().st_mtime_ns
