"""Reads the tensors of a checkpoint, and renames them by rules."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.files import field, read_json

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"


class Weights(Mapping[str, Tensor]):
    """Name -> tensor of a checkpoint, read from its file on access.

    Safetensors are mapped into memory. Pickled files (`.bin`) are read as data only: code in them is refused.

    Args:
        folder: the checkpoint's folder.

    Raises:
        InputError: the folder has no weights, or an index that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[Path, Any] = {}
        self._files = self._find()

    def __getitem__(self, name: str) -> Tensor:
        file = self._files[name]
        try:
            held = self._reader(file)
            return held.get_tensor(name) if file.suffix == ".safetensors" else held[name]
        except (SafetensorError, KeyError) as error:
            raise InputError(f"{file}: weight {name} is not there ({error}); download the file again") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def file(self, name: str) -> Path:
        """Returns the file that holds a weight."""
        return self._files[name]

    def _find(self) -> dict[str, Path]:
        for single in (SAFETENSORS, PICKLED):
            index, file = self.folder / f"{single}.index.json", self.folder / single
            if index.is_file():
                return self._indexed(index)
            if file.is_file():
                return dict.fromkeys(self._names(file), file)
        raise InputError(f"{self.folder}: no weights; expected {SAFETENSORS}, {PICKLED}, or several with an index")

    def _indexed(self, index: Path) -> dict[str, Path]:
        try:
            places = field(read_json(index), "weight_map", dict, str(index))
            files = {name: self.folder / file for name, file in places.items()}
        except (InputError, TypeError) as error:
            raise InputError(f"{index}: no index of weights ({error}); download it again") from error
        for file in sorted(set(files.values())):
            if not file.is_file():
                raise InputError(f"{file}: named by {index.name}, but not there; download it")
            if unnamed := sorted(set(self._names(file)) - files.keys()):
                raise InputError(f"{file}: weight {unnamed[0]} is not in {index.name}; download both again")
        return files

    def _names(self, file: Path) -> list[str]:
        return list(self._reader(file).keys())

    def _reader(self, file: Path) -> Any:
        if file not in self._open:
            try:
                self._open[file] = _open(file)
            except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                reason = " ".join(str(error).split())[:150]
                raise InputError(
                    f"{file}: cannot be read as {file.suffix} weights ({reason}); download it again, whole"
                ) from error
        return self._open[file]


def _open(file: Path) -> Any:
    if file.suffix == ".safetensors":
        return safe_open(file, framework="pt")
    found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(found, dict):
        raise RuntimeError("no dictionary of tensors")
    return found


class Renaming:
    """Renames original weights to transformers' names by the first rule that matches.

    Args:
        format: name of the original format, for messages.
        rules: (pattern at the start of a name, replacement), with None as the replacement to drop the weight.
    """

    def __init__(self, format: str, rules: Sequence[tuple[str, str | None]]) -> None:
        self.format = format
        self.rules = [(re.compile(pattern), target) for pattern, target in rules]

    def __call__(self, name: str, file: Path) -> str | None:
        """Returns the new name of a weight in a file; None for a weight to drop.

        Raises:
            InputError: no rule matches.
        """
        for pattern, target in self.rules:
            if pattern.match(name):
                return None if target is None else pattern.sub(target, name, count=1)
        raise InputError(f"{file}: weight {name} has no place in a model of the {self.format} format")
