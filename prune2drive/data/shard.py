"""Takes a shard of a dataset, of whole frames, for one job of an array."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

from prune2drive.data.dataset import Dataset, group_by_frame
from prune2drive.data.view import DatasetView
from prune2drive.errors import InputError, shortened


@dataclass(frozen=True)
class Shard:
    """Names one of several equal parts of a dataset.

    Args:
        number: the part, from 1.
        count: how many parts there are.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: Any) -> Shard:
        """Reads `3/16`, the third of sixteen parts.

        Raises:
            InputError: the text is no such name.
        """
        found = re.fullmatch(r"0*([1-9]\d*)/0*([1-9]\d*)", text) if isinstance(text, str) else None
        if not found:
            raise InputError(f"shard={shortened(text)}: write the part and their number, from 1/16 to 16/16")
        shard = cls(int(found[1]), int(found[2]))
        if shard.number > shard.count:
            parts = f"from 1/{shard.count} to {shard.count}/{shard.count}"
            raise InputError(f"shard={shard}: there are {shard.count} parts, {parts}; choose one of them")
        return shard

    def __str__(self) -> str:
        """Returns the name as on the command line, `3/16`."""
        return f"{self.number}/{self.count}"

    @property
    def file_name(self) -> str:
        """Returns the name as part of a file's, `3-of-16`."""
        return f"{self.number}-of-{self.count}"

    def take(self, dataset: Dataset) -> DatasetShard:
        """Returns this part of a dataset: neighbouring frames, about as many questions as in the other parts.

        Raises:
            InputError: there are more parts than frames.
        """
        frames = group_by_frame(dataset, range(len(dataset)))
        if self.count > len(frames):
            few = f"the {len(dataset)} questions are about {len(frames)} frames"
            raise InputError(f"shard={self}: {few}, and a frame is never divided; use at most {len(frames)} parts")
        bounds = _bounds([len(frame) for frame in frames], self.count)
        mine = frames[bounds[self.number - 1] : bounds[self.number]]
        return DatasetShard(dataset, sorted(chain.from_iterable(mine)), self)


class DatasetShard(DatasetView):
    """Shows a part of a dataset.

    Args:
        whole: the dataset.
        places: indices of the part's questions, ascending.
        shard: which part it is.
    """

    def __init__(self, whole: Dataset, places: list[int], shard: Shard) -> None:
        super().__init__(whole, places)
        self.shard = shard


def identify(dataset: Dataset) -> dict[str, Any]:
    """Returns what run.json says of a dataset, by which two are the same; of a shard, of which whole it is too."""
    identity: dict[str, Any] = {"fingerprint": dataset.fingerprint, "size": len(dataset)}
    if isinstance(dataset, DatasetShard):
        identity |= {"shard": str(dataset.shard), "whole": identify(dataset.whole)}
    return identity


def _bounds(sizes: list[int], count: int) -> list[int]:
    """Returns where parts begin and end among frames, so that they have nearly equal sums, and each at least one frame.

    Args:
        sizes: number of questions of each frame, at least `count` frames.
        count: number of parts.

    Returns:
        `count` + 1 places among the frames, strictly ascending.
    """
    before = [0, *accumulate(sizes)]
    bounds = [0]
    for part in range(1, count):
        aim = before[-1] * part / count
        place = bisect_left(before, aim)
        place -= aim - before[place - 1] <= before[place] - aim
        bounds.append(min(max(place, bounds[-1] + 1), len(sizes) - (count - part)))
    return [*bounds, len(sizes)]
