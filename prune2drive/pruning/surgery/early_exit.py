"""Ends a forward pass at a decoder layer, for those who only want to know which tokens are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class _Reached(Exception):
    pass


@contextmanager
def stop_at(model: Any, layer: int, seen: list[Tensor] | None = None) -> Iterator[None]:
    """Ends the block when the model is about to enter a decoder layer, behind the hooks that are already on it.

        with prune(model, pruner, keep=0.1) as trace, stop_at(model, pruner.cuts[-1]):
            model.generate(**inputs)

    Args:
        layer: vision and the layers before it are computed, it and all others are not.
        seen: takes the states that were about to enter the layer.
    """

    def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
        if seen is not None:
            seen.append(args[0])
        raise _Reached

    hook = model.get_decoder().layers[layer].register_forward_pre_hook(stop)
    try:
        yield
    except _Reached:
        pass
    finally:
        hook.remove()
