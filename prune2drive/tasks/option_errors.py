"""Explains in one line what is wrong with an option of the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from hydra.errors import (
    CompactHydraException,
    ConfigCompositionException,
    MissingConfigException,
    OverrideParseException,
    SearchPathException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

BAD_OPTIONS = (ConfigCompositionException, OverrideParseException, SearchPathException)
"""What Hydra raises for options that it cannot apply."""


def explain(error: CompactHydraException) -> str:
    """Returns one line that says which option Hydra refused, which there are, and which is meant perhaps.

    Args:
        error: one of `BAD_OPTIONS`.
    """
    cause = error.__cause__
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)) and isinstance(cause.parent_node, DictConfig):
        return _no_such_option(str(cause.full_key), cause.parent_node)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        meant = _meant(f"{group}={near}" for near in get_close_matches(name, error.options, n=1))
        return f"{group}={name}: no such choice; {group} has {', '.join(sorted(error.options))}{meant}"
    first, *others = [line.strip() for line in f"{error}\n{cause or ''}".splitlines() if line.strip()]
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read as name=value ({first})"
    if first.startswith("Ambiguous value"):
        option = first.partition("'")[2].rstrip("'")
        return f"{option}: has several values; add -m to run each of them, or write a list as name=[a,b]"
    return " ".join([first, *others])


def _no_such_option(full_key: str, node: DictConfig) -> str:
    group, _, key = full_key.rpartition(".")
    names = [str(name) for name in _keys(node) if group or name != "hydra"]
    near = [f"{group}.{name}".lstrip(".") for name in get_close_matches(key, names, n=1)]
    meant = _meant(near or [path for path in _paths(node._get_root()) if path.rpartition(".")[2] == key])
    has = f"{group} has {', '.join(names) or 'no options'}" if group else f"there are {', '.join(names)}"
    return f"{full_key}: no such option; {has}{meant}"


def _meant(options: Iterable[str]) -> str:
    nearest = " or ".join(options)
    return f"; did you mean {nearest}?" if nearest else ""


def _keys(node: DictConfig) -> list[Any]:
    return [key for key in node if not str(key).startswith("_")]


def _paths(node: Any, above: str = "") -> Iterator[str]:
    """Yields the full names of all options but Hydra's own."""
    for key in _keys(node):
        path = f"{above}.{key}".lstrip(".")
        yield path
        child = node._get_node(key)
        if OmegaConf.is_dict(child) and path != "hydra" and not (child._is_none() or child._is_interpolation()):
            yield from _paths(child, path)
