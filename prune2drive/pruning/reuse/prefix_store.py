"""Named sets of tensors within a limit: in memory, or in a folder that is mapped into memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from prune2drive.errors import InputError

Tensors = Mapping[str, Tensor]


class PrefixStore:
    """Keeps what it is given until it is full; what came first stays.

    A search walks over the same questions again and again, so that throwing out the oldest would throw out each entry
    just before it is wanted.

    Args:
        limit_gb: size in GB (1e9 bytes) of all tensors.
        folder: where entries are files, which processes share and the next one finds; None keeps them in memory.

    Raises:
        InputError: a limit that holds nothing, or a folder that cannot be written.
    """

    def __init__(self, limit_gb: float, folder: str | Path | None = None) -> None:
        if not limit_gb > 0:
            raise InputError(f"prefix_cache.limit_gb={limit_gb}: use a number above 0, or prefix_cache=none")
        self.limit = int(limit_gb * 1e9)
        self.folder = None if folder is None else Path(folder).expanduser()
        self._held: dict[str, Tensors] = {}
        self._bytes = 0
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"prefix_cache.folder={folder}: cannot be made ({error.strerror})") from error
            self._bytes = sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))

    def get(self, key: str) -> Tensors | None:
        """The tensors under a key; read-only. None where there are none."""
        if key in self._held or self.folder is None:
            return self._held.get(key)
        file = self._file(key)
        if not file.is_file():
            return None
        try:
            self._held[key] = load_file(file)  # maps the file: pages are read when they are used
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file}: damaged ({error}); remove it") from error
        return self._held[key]

    def put(self, key: str, tensors: Tensors) -> bool:
        """Keeps tensors, which must be contiguous and share no memory; False where they find no room.

        Raises:
            InputError: they cannot be written.
        """
        if self.get(key) is not None:
            return True
        size = sum(tensor.nbytes for tensor in tensors.values())
        if self._bytes + size > self.limit:
            return False
        self._bytes += size
        if self.folder is None:
            self._held[key] = tensors
            return True
        file = self._file(key)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            save_file(dict(tensors), partial)
            partial.replace(file)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file}: cannot be written ({error}); lower prefix_cache.limit_gb") from error
        return True

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"
