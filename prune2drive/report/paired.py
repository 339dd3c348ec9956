"""Compares a run with the same questions answered from all tokens, question by question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from prune2drive.metrics.statistics import Interval, RatioOfSums, interval, share_interval
from prune2drive.report.camera_names import CameraNames
from prune2drive.report.finished_run import FinishedRun
from prune2drive.sample import Prediction

Pair = tuple[Prediction, Prediction | None]


@dataclass
class Scores:
    """Holds the scores of some questions, in the run and, where there is one, with all tokens.

    Args:
        pruned: a score of each question.
        full: the same with all tokens; empty where nothing is known of it.
        groups: the scene of each question or, where it is unknown, its frame.
    """

    pruned: list[float] = field(default_factory=list)
    full: list[float] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def add(self, pruned: float, full: float | None, group: str) -> None:
        """Adds a question."""
        self.pruned.append(pruned)
        self.groups.append(group)
        if full is not None:
            self.full.append(full)

    @property
    def n(self) -> int:
        """The number of questions."""
        return len(self.pruned)

    def mean(self, values: list[float]) -> float:
        """Returns the mean of scores."""
        return sum(values) / len(values)

    def average_to(self, value: float | None) -> bool:
        """Returns whether a metric is the mean of the run's scores."""
        return value is not None and self.n > 0 and abs(self.mean(self.pruned) - value) < 1e-6

    def difference(self) -> Interval | None:
        """Returns the paired difference from all tokens; None where there is nothing to compare, or a single scene."""
        if len(self.full) != self.n or len(set(self.groups)) < 2:
            return None
        changes = (ours - theirs for ours, theirs in zip(self.pruned, self.full, strict=True))
        return interval(dict(enumerate(changes)), dict(enumerate(self.groups)))


class Coverage:
    """Counts annotated objects that keep a token, in the run and with all tokens."""

    def __init__(self) -> None:
        self.pruned, self.full, self.change = RatioOfSums(), RatioOfSums(), RatioOfSums()
        self.has_full = False

    def add(self, group: str, pruned: int, full: int | None, objects: int) -> None:
        """Adds the objects of a question."""
        self.pruned.add(group, pruned, objects)
        if full is not None:
            self.has_full = True
            self.full.add(group, full, objects)
            self.change.add(group, pruned - full, objects)

    def difference(self) -> Interval | None:
        """Returns the paired difference from all tokens, with a normal interval over scenes, cut to [-1, 1]."""
        if not self.has_full or self.change.groups < 2:
            return None
        value, half = self.change.value, 1.96 * self.change.stderr
        return Interval(value, max(value - half, -1.0), min(value + half, 1.0), self.change.denominator)


@dataclass
class Paired:
    """A run's scores and coverage, all together and by part.

    Args:
        scores: of all questions.
        parts: key of metrics.json -> scores of the questions that it is the mean of, where there is a full run.
        by_kind: kind of question -> scores.
        by_camera: camera -> scores of the questions that name it.
        coverage: (`size`, `class` or `camera`, its name) -> coverage.
    """

    scores: Scores = field(default_factory=Scores)
    parts: dict[str, Scores] = field(default_factory=lambda: defaultdict(Scores))
    by_kind: dict[str, Scores] = field(default_factory=lambda: defaultdict(Scores))
    by_camera: dict[str, Scores] = field(default_factory=lambda: defaultdict(Scores))
    coverage: dict[tuple[str, str], Coverage] = field(default_factory=lambda: defaultdict(Coverage))


def compare(pruned: FinishedRun, full: FinishedRun | None) -> Paired:
    """Reads the rows of both runs once.

    Args:
        pruned: the run.
        full: the same questions with all tokens.
    """
    found = Paired()
    cameras: list[str] = []
    names = CameraNames(cameras)
    pairs: Iterable[Pair] = _pairs(pruned.rows, full.rows) if full else ((row, None) for row in pruned.rows)
    for row, other in pairs:
        if row.error is not None or (full and (other is None or other.error is not None)):
            continue
        if new := [camera for camera in row.full_counts if camera not in cameras]:
            cameras += new
            names = CameraNames(cameras)
        group = row.scene or row.frame or row.id
        _count_objects(found, row, other, group)
        for key, values in pruned.parts.items() if full else ():
            before = full.parts[key].get(row.id) if full else None
            if row.id in values and before is not None:
                found.parts[key].add(values[row.id], before, group)
        score, before = pruned.scores.get(row.id), full.scores.get(row.id) if full else None
        if score is None or (full and before is None):
            continue
        places = names.mentioned(f"{row.question}\n{row.reference or ''}")
        parts = [found.scores, *(found.by_camera[cameras[place]] for place in places)]
        for part in [*parts, found.by_kind[row.kind]] if row.kind else parts:
            part.add(score, before, group)
    return found


def _count_objects(found: Paired, row: Prediction, other: Prediction | None, group: str) -> None:
    before = {tuple(key): covered for *key, covered, _ in other.objects} if other else {}
    for camera, size, label, covered, objects in row.objects:
        full = before.get((camera, size, label)) if other else None
        for part in (("size", size), ("class", label), ("camera", camera), ("all", "all objects")):
            found.coverage[part].add(group, covered, full, objects)


def _pairs(rows: Iterable[Prediction], others: Iterable[Prediction]) -> Iterator[Pair]:
    """Yields each row with the other run's row of the same question; holds few of them where the orders agree."""
    ours: dict[str, Prediction] = {}
    theirs: dict[str, Prediction] = {}
    for row, other in zip_longest(rows, others):
        ours |= {row.id: row} if row else {}
        theirs |= {other.id: other} if other else {}
        for each in (row, other):
            if each and each.id in ours and each.id in theirs:
                yield ours.pop(each.id), theirs.pop(each.id)
    yield from ((row, None) for row in ours.values())


def normal(share: RatioOfSums) -> Interval:
    """Returns a ratio with its normal interval."""
    return share_interval(share.value, share.stderr, share.denominator)
