"""The tokens that one budget is spent on.

Shape suffixes: N tokens of a pool.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from prune2drive.token_map import TokenMap


@dataclass(frozen=True)
class Pool:
    """The tokens that one budget is spent on: those of one camera of a sample, or of several as `scope` says.

    Args:
        sample_id: id of the sample, whatever its place in the batch.
        cameras: cameras of the pool.
        row: batch row of the sample.
        at_N: positions of the tokens in the padded batch, as it is after earlier cuts.
        token_map: TokenMap of the sample's prompt.
        of_N: indices of the tokens among those that the pool had before any cut.
    """

    sample_id: str
    cameras: tuple[str, ...]
    row: int
    at_N: Tensor
    token_map: TokenMap
    of_N: Tensor

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of tokens of each camera in the pool."""
        if len(self.cameras) == 1:
            return (len(self.of_N),)
        ends = torch.tensor([self.token_map.counts[camera] for camera in self.cameras]).cumsum(0)
        owner_N = torch.searchsorted(ends, self.of_N, right=True)
        return tuple(owner_N.bincount(minlength=len(ends)).tolist())

    def whole(self, length: int) -> Tensor:
        """Returns the positions of all the pool's tokens in the padded batch of `length` before any cut."""
        at_N = torch.cat([self.token_map.positions(camera) for camera in self.cameras])
        return at_N + length - self.token_map.length

    def generator(self, seed: int) -> torch.Generator:
        """Returns a CPU generator that depends on the seed, the sample and the cameras alone."""
        key = f"{seed}/{self.sample_id}/{'+'.join(self.cameras)}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
