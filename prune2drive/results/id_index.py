"""Finds the places of question ids in a few bytes each: hundreds of thousands of rows must not fill the memory."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence, Set
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class IdIndex:
    """Maps ids to their places, as a dict would, in 12 bytes an id.

    Args:
        ids: unique ids, which are not copied.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids
        hashes = np.fromiter(map(_hash, ids), np.uint64, len(ids))
        self._places = np.argsort(hashes, kind="stable").astype(np.uint32)
        self._hashes = hashes[self._places]

    def place(self, name: str) -> int | None:
        """Returns the place of an id; None where it is not there."""
        number = np.uint64(_hash(name))
        for at in range(int(self._hashes.searchsorted(number)), len(self._hashes)):
            if self._hashes[at] != number:
                break
            if self.ids[place := int(self._places[at])] == name:
                return place
        return None


class IdSet(Set[str]):
    """Holds some of the ids of an index, in a byte an id.

    Args:
        index: all ids.
        is_in_N: whether each of them is in the set; bool [N].
    """

    def __init__(self, index: IdIndex, is_in_N: NDArray[np.bool_]) -> None:
        self._index, self._is_in_N = index, is_in_N

    def __contains__(self, name: object) -> bool:
        place = self._index.place(name) if isinstance(name, str) else None
        return place is not None and bool(self._is_in_N[place])

    def __iter__(self) -> Iterator[str]:
        return (self._index.ids[place] for place in np.flatnonzero(self._is_in_N))

    def __len__(self) -> int:
        return int(self._is_in_N.sum())

    @classmethod
    def _from_iterable(cls, ids: Iterable[T]) -> Set[T]:  # of a union or an intersection
        return set(ids)


class NumbersById:
    """Holds a number for each of many ids, as a dict would, in 16 bytes an id.

    Ids are not kept: those of equal 64-bit hashes are taken for the same, which a million ids meet once in 37 million
    times.

    Args:
        numbers: ids with their numbers; the last one of an id counts.
    """

    def __init__(self, numbers: Iterable[tuple[str, float]] = ()) -> None:
        self._hashes, self._numbers = array("Q"), array("d")
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.float64]] | None = None
        for name, number in numbers:
            self.add(name, number)

    def add(self, name: str, number: float) -> None:
        """Adds an id, or replaces its number."""
        self._hashes.append(_hash(name))
        self._numbers.append(number)
        self._sorted = None

    def get(self, name: str) -> float | None:
        """Returns the number of an id; None where it has none."""
        if self._sorted is None:
            hashes_N = np.array(self._hashes, np.uint64)
            order_N = np.argsort(hashes_N, kind="stable")
            self._sorted = hashes_N[order_N], np.array(self._numbers)[order_N]
        hashes_N, numbers_N = self._sorted
        number = np.uint64(_hash(name))
        place = int(hashes_N.searchsorted(number, "right")) - 1
        return float(numbers_N[place]) if place >= 0 and hashes_N[place] == number else None


def _hash(name: str) -> int:
    return hash(name) & 0xFFFF_FFFF_FFFF_FFFF
