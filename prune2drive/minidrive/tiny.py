"""An untrained model of a few megabytes, with which everything runs offline in seconds."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from prune2drive.errors import check_choice
from prune2drive.minidrive.architecture import Architecture, build_config, build_model, build_processor
from prune2drive.models.adapter import Adapter

log = logging.getLogger(__name__)

SMALL = {"vision_width": 96, "vision_layers": 2, "width": 128, "layers": 4, "mlp": 256}


class Tiny(Adapter):
    """Adapts an untrained LLaVA-OneVision with random weights, for tests and first steps; its answers are noise.

    Args:
        seed: seed of the weights.
        attention: `sdpa` or `eager`.
        sizes: fields of `Architecture` in place of its own small ones.

    Raises:
        InputError: the attention is neither, or the patches do not fit the resolution.
    """

    is_noise: ClassVar[bool] = True
    cpu_threads: ClassVar[int | None] = 1

    def __init__(self, seed: int = 0, attention: str = "sdpa", sizes: Mapping[str, int] | None = None) -> None:
        check_choice("model.attention", attention, ("sdpa", "eager"))
        self.seed, self.attention = seed, attention
        self.sizes = Architecture(**(SMALL | dict(sizes or {})))
        super().__init__(build_config(self.sizes), build_processor(self.sizes.resolution, self.sizes.patch))

    def load(self) -> Any:
        """Builds the model; its weights depend on the seed alone."""
        log.warning("model=tiny has random weights: its answers are noise, only counts and times have a meaning")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = build_model(self.sizes)
        model.set_attn_implementation(self.attention)
        return model
