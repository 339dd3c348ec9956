"""Builds pruners by the names that the command line gives them, from the same configurations, without Hydra."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import yaml

from prune2drive.errors import InputError
from prune2drive.files import CONFIGS
from prune2drive.pruning import Pruner

TARGET = "_target_"
REFERENCE = re.compile(r"\$\{(\w+)\}")  # to an option of config.yaml


def pruner_settings(name: str) -> dict[str, Any]:
    """Returns a pruner's options with their defaults, and its class as `_target_`.

    Args:
        name: as in `pruner=name` on the command line.

    Raises:
        InputError: there is no such pruner.
    """
    known = sorted(file.stem for file in (CONFIGS / "pruner").glob("*.yaml"))
    if name not in known:
        raise InputError(f"pruner={name}: no such choice; pruner has {', '.join(known)}{meant(name, known)}")
    shared = _read("config")
    settings: dict[str, Any] = _resolved(_read(f"pruner/{name}"), shared)
    return settings


def build_pruner(name: str, options: Mapping[str, Any] | None = None) -> Pruner:
    """Builds a pruner.

    Args:
        name: as in `pruner=name` on the command line.
        options: its options by name; one of a pruner inside a pruner as `pruner.<option>`, and that pruner itself by
            its name, as `pruner`.

    Raises:
        InputError: there is no such pruner or option, or the option cannot have that value.
    """
    settings, given = pruner_settings(name), options or {}
    for option in sorted(given, key=lambda each: each.count(".")):
        _set(settings, option, given[option], f"pruner={name}")
    pruner: Pruner = _build(settings)
    return pruner


def option_names(settings: Mapping[str, Any]) -> list[str]:
    """Returns the names of a pruner's options."""
    return [option for option in settings if option != TARGET]


def meant(name: str, choices: list[str]) -> str:
    """Returns the end of a message about an unknown name: the choice that is perhaps meant, if any is near."""
    near = get_close_matches(name, choices, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _set(settings: dict[str, Any], option: str, value: Any, place: str) -> None:
    """Sets an option; one of a pruner inside is named by its path."""
    first, _, rest = option.partition(".")
    names = option_names(settings)
    if first not in names or (rest and not isinstance(settings[first], dict)):
        has = ", ".join(names) or "no options"
        raise InputError(f"{option}: no such option; {place} has {has}{meant(first, names)}")
    if rest:
        _set(settings[first], rest, value, f"{place} {first}")
    elif isinstance(settings[first], dict) and isinstance(value, str):
        settings[first] = pruner_settings(value)
    else:
        settings[first] = value


def _build(node: Any) -> Any:
    """Builds the object that a configuration names."""
    if not isinstance(node, dict):
        return node
    values = {option: _build(value) for option, value in node.items() if option != TARGET}
    if TARGET not in node:
        return values
    module, _, name = node[TARGET].rpartition(".")
    try:
        return getattr(import_module(module), name)(**values)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: {' '.join(str(error).split())}") from error


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def _resolved(node: Any, shared: Mapping[str, Any]) -> Any:
    """Returns a configuration with the values of the shared options that it refers to."""
    if isinstance(node, dict):
        return {option: _resolved(value, shared) for option, value in node.items()}
    reference = REFERENCE.fullmatch(node) if isinstance(node, str) else None
    return shared[reference[1]] if reference else node
