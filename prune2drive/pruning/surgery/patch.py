"""Replaces a method on one instance, and puts it back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, wraps
from typing import Any

from torch import nn

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
"""A module's positional and keyword arguments, as hooks get them."""


def override_method(undo: ExitStack, module: nn.Module, name: str, function: Callable[..., Any]) -> None:
    """Replaces a method on this instance until `undo` closes; `function` is given the original first."""
    before = dict(module.__dict__)
    original = getattr(module, name)
    module.__dict__[name] = wraps(original)(partial(function, original))

    def restore() -> None:
        if name in before:
            module.__dict__[name] = before[name]
        else:
            del module.__dict__[name]

    undo.callback(restore)
