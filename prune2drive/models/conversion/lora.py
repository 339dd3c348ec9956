"""Merges low-rank adapters (LoRA, arXiv 2106.09685) into the weights they change."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.models.conversion.weights import Weights

SCALE = 2.0  # InternVL sets alpha to twice the rank, whatever the rank
ADAPTER = re.compile(r"(?P<target>.+)\.lora_(?P<side>[AB])\.(?:\w+\.)?weight$")


class Merged(Mapping[str, Tensor]):
    """Weights under their names without adapters, merged when they are read.

    Args:
        weights: the checkpoint's weights.
        plain: name without adapters -> name in the checkpoint.
        adapters: name without adapters -> side A or B -> name of the adapter's matrix.
    """

    def __init__(self, weights: Weights, plain: dict[str, str], adapters: dict[str, dict[str, str]]) -> None:
        self._weights, self._plain, self._adapters = weights, plain, adapters

    @property
    def files(self) -> dict[str, Path]:
        return {name: self._weights.file(source) for name, source in self._plain.items()}

    def __getitem__(self, name: str) -> Tensor:
        weight = self._weights[self._plain[name]]
        if name not in self._adapters:
            return weight
        down, up = (self._weights[self._adapters[name][side]].float() for side in "AB")
        if (up.shape[0], down.shape[1]) != tuple(weight.shape) or up.shape[1] != down.shape[0]:
            raise InputError(
                f"{self._weights.file(self._plain[name])}: LoRA {tuple(up.shape)} x {tuple(down.shape)} does not fit "
                f"{name} {tuple(weight.shape)}"
            )
        return (weight.float() + SCALE * (up @ down)).to(weight.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._plain)

    def __len__(self) -> int:
        return len(self._plain)


@torch.no_grad()
def merge(weights: Weights, wrapped: Sequence[str]) -> Merged:
    """Merges adapters into their weights as W + (alpha / r) B A, computed in float32.

    Args:
        weights: the checkpoint's weights, with or without adapters.
        wrapped: names of the modules that adapters may wrap.

    Raises:
        InputError: half of an adapter is missing, or the weight that an adapter changes.
    """
    prefix = re.compile(rf"^({'|'.join(wrapped)})\.base_model\.model\.")
    plain: dict[str, str] = {}
    adapters: dict[str, dict[str, str]] = {}
    for source in weights:
        name = prefix.sub(r"\1.", source)
        if match := ADAPTER.match(name):
            adapters.setdefault(f"{match['target']}.weight", {})[match["side"]] = source
        else:
            plain[name.replace(".base_layer.", ".")] = source
    for name, sides in adapters.items():
        if len(sides) < 2 or name not in plain:
            found = next(iter(sides.values()))
            missing = f"weight {name}" if name not in plain else "other half"
            raise InputError(f"{weights.file(found)}: LoRA {found} has no {missing}; download the checkpoint again")
    return Merged(weights, plain, adapters)
