"""Contexts for methods that are tried on tensors alone."""

from typing import Any

import torch

from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.token_map import TokenMap


def pools_of(count: int, cameras: tuple[str, ...] = ("CAM_FRONT",), sample: str = "a") -> tuple[Pool, ...]:
    """One pool a camera of `count` tokens each, one prompt without text."""
    spans = {camera: (index * count, (index + 1) * count) for index, camera in enumerate(cameras)}
    token_map = TokenMap.from_spans(spans, count * len(cameras))
    every = torch.arange(count)
    return tuple(Pool(sample, (camera,), 0, token_map.positions(camera), token_map, every) for camera in cameras)


def context(*pools: Pool, **given: Any) -> Context:
    """What a method is shown: the pools, and of the rest what a test gives."""
    empty: Any = torch.empty(0)
    tensors = {"embeddings_BPD": empty, "prompt_BPD": given.get("embeddings_BPD", empty), "question_BP": empty}
    rest = {"before": None, "at": None, "norm": torch.nn.Identity(), "vision": None, **tensors}
    return Context(pools=pools, **{**rest, **given})
