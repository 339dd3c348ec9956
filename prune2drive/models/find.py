"""Finds the adapter that reads a checkpoint."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module

from prune2drive import models
from prune2drive.errors import InputError
from prune2drive.models.hub import Checkpoint
from prune2drive.models.pretrained import Pretrained


@cache
def known_adapters() -> dict[str, type[Pretrained]]:
    """Returns every adapter of a checkpoint's family that this folder has, by the `model_type` of its checkpoints."""
    modules = [import_module(f"{models.__name__}.{file.name}") for file in pkgutil.iter_modules(models.__path__)]
    classes = [value for module in modules for value in vars(module).values() if inspect.isclass(value)]
    adapters = [each for each in classes if issubclass(each, Pretrained) and not inspect.isabstract(each)]
    return {kind: adapter for adapter in adapters for kind in adapter.model_types()}


def adapter_of(checkpoint: str, revision: str | None = None) -> type[Pretrained]:
    """Returns the adapter for a checkpoint, of which only config.json is read.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: there is no such checkpoint, or it is of a family that no adapter reads.
    """
    kind, adapters = Checkpoint(checkpoint, revision).settings["model_type"], known_adapters()
    if kind not in adapters:
        raise InputError(
            f"model.checkpoint={checkpoint}: {kind} models cannot be pruned; known are {', '.join(sorted(adapters))}"
        )
    return adapters[kind]
