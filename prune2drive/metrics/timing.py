"""Measures seconds and memory of the phases of a generation, from outside the model."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from prune2drive.families.kv_cache import cache_of


@dataclass
class Times:
    """Seconds spent within a `timed` block.

    Args:
        vision: seconds in the vision tower and projector.
        prefill: seconds in decoder forwards that start a KV cache, token selection included; the pruning trace has the
            seconds of selection.
        decode: seconds in all other decoder forwards. The output projection and sampling lie outside the decoder.
        decode_steps: number of decoder forwards that decode; a batch makes one step together.
    """

    vision: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    decode_steps: int = 0


@contextmanager
def timed(
    model: PreTrainedModel,
    vision_modules: Iterable[nn.Module] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Times]:
    """Measures every forward of `model` within the block, by hooks that it removes afterwards.

    Args:
        model: any model with `get_decoder()`. On CUDA the device is synchronized before each reading.
        vision_modules: the vision tower and projector; none may contain another.
        clock: a function that returns seconds.

    Yields:
        Times that grow with every forward; a forward that raises is not counted.
    """
    times = Times()
    started = 0.0
    prefilling = False

    def read() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return clock()

    def start(*_: Any) -> None:
        nonlocal started
        started = read()

    def start_decoder(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal prefilling
        cache = cache_of(kwargs)
        prefilling = cache is None or cache.get_seq_length() == 0
        start()

    def stop_vision(*_: Any) -> None:
        times.vision += read() - started

    def stop_decoder(*_: Any) -> None:
        seconds = read() - started
        if prefilling:
            times.prefill += seconds
        else:
            times.decode += seconds
            times.decode_steps += 1

    decoder = model.get_decoder()
    # Prepended, so that the work of hooks that are already on the decoder is measured too.
    hooks = [decoder.register_forward_pre_hook(start_decoder, prepend=True, with_kwargs=True)]
    hooks.append(decoder.register_forward_hook(stop_decoder))
    for module in vision_modules:
        hooks += [module.register_forward_pre_hook(start, prepend=True), module.register_forward_hook(stop_vision)]
    try:
        yield times
    finally:
        for hook in hooks:
            hook.remove()


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new peak on a CUDA device; the peak of a process cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Returns the peak memory in MB (1e6 bytes).

    On CUDA this is the memory of tensors on `device` since `reset_peak_memory`, otherwise the largest resident set of
    the process since it started (POSIX only).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # macOS reports bytes, Linux KiB
