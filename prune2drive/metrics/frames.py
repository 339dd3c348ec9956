"""Goes through a run's rows frame by frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import groupby

from prune2drive.sample import Prediction


def by_frame(rows: Collection[Prediction]) -> Iterator[list[Prediction]]:
    """Yields the rows of each frame, in the order in which frames begin.

    One frame at a time is in memory where its questions are neighbours, as they are in benchmarks' files.
    """
    begun: set[int] = set()
    for key, _ in groupby(map(_frame, rows)):
        if hash(key) in begun:
            break
        begun.add(hash(key))
    else:
        yield from (list(found) for _, found in groupby(rows, key=_frame))
        return
    frames: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for row in rows:
        frames[_frame(row)].append(row)
    yield from frames.values()


def _frame(row: Prediction) -> tuple[str, str]:
    return row.scene, row.frame
