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
    """The tokens one budget is spent on: one camera of one sample or, with `scope=global`, all of them.

    Args:
        sample_id: identifies the sample whatever its place in the batch.
        cameras: the cameras in the pool.
        row: the sample's row in the batch.
        at_N: positions of the tokens in the (padded) batch, as it is after earlier cuts.
        token_map: where the tokens lie in the cameras' grids.
        of_N: which of the pool's tokens before any cut these are.
    """

    sample_id: str
    cameras: tuple[str, ...]
    row: int
    at_N: Tensor
    token_map: TokenMap
    of_N: Tensor

    def whole(self, length: int) -> Tensor:
        """Positions of all the pool's tokens in the (padded) batch of `length` that was not cut yet."""
        at_N = torch.cat([self.token_map.positions(camera) for camera in self.cameras])
        return at_N + length - self.token_map.length

    def generator(self, seed: int) -> torch.Generator:
        """A CPU generator that depends on the seed, the sample and the cameras, and on nothing else."""
        key = f"{seed}/{self.sample_id}/{'+'.join(self.cameras)}".encode()
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
