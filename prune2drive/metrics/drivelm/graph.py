"""Which answers the DriveLM challenge scores, and how it compares the coordinates in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from prune2drive.metrics.frames import by_frame
from prune2drive.sample import Prediction

MATCH_DISTANCE = 16  # pixels, L1

Point = tuple[float, float]


class Pair(NamedTuple):
    """A row that has both an answer and a reference."""

    row: Prediction
    answer: str
    reference: str

    @property
    def number(self) -> int | None:
        """The question's place in its frame, from 0: the number that its id ends in."""
        digits = re.search(r"\d+$", self.row.id)
        return int(digits[0]) if digits else None


def follow_graph(predictions: Collection[Prediction], counts: Counter[str] | None = None) -> Iterator[Pair]:
    """Yields the answers to score, frame by frame in the order of the questions.

    The reference coordinates that the answer to a frame's first question finds are the frame's graph; a later question
    is scored only if all its coordinates are in the graph. Without an answer to the first question there is no graph,
    and the whole frame is scored.

    Args:
        predictions: all rows of a run.
        counts: adds `skipped_by_graph` (answers) and `frames_without_graph` to these, as it goes on.
    """
    counts = Counter() if counts is None else counts
    for rows in by_frame(predictions):
        pairs = sorted(_answered(rows), key=lambda pair: pair.number or 0)
        first = next((pair for pair in pairs if pair.number == 0), None)
        graph = match(first.answer, first.reference)[0] if first else None
        tagged = [pair for pair in pairs if pair.row.tags]
        kept = [p for p in tagged if p is first or graph is None or set(coordinates(p.row.question)) <= set(graph)]
        yield from kept
        counts["skipped_by_graph"] += len(tagged) - len(kept)
        counts["frames_without_graph"] += bool(tagged) and graph is None


def _answered(rows: Iterable[Prediction]) -> list[Pair]:
    return [
        Pair(row, row.answer, row.reference)
        for row in rows
        if row.answer is not None and row.reference is not None and row.error is None
    ]


def coordinates(text: str) -> list[Point]:
    """Returns the points of a text, such as <c1,CAM_FRONT,1043.2,82.2>: its decimal numbers in pairs."""
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", text)]
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def match(answer: str, reference: str) -> tuple[list[Point], float]:
    """Returns the reference's points that an answer finds, and the F1 of the answer's points.

    Every point of the answer in turn takes the nearest reference point still free, the first of equally near ones, if
    it is closer than `MATCH_DISTANCE`. The F1 of two texts without points is 0.
    """
    points, free = coordinates(answer), coordinates(reference)
    total = len(points) + len(free)
    hits = []
    for x, y in points:
        distances = [abs(x - u) + abs(y - v) for u, v in free]
        if distances and min(distances) < MATCH_DISTANCE:
            hits.append(free.pop(distances.index(min(distances))))
    return hits, 2 * len(hits) / total if total else 0.0
