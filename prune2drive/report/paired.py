"""Compares a run with the same questions answered from all tokens, question by question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest

from prune2drive.metrics.intervals import GroupedMean, Interval, share_interval
from prune2drive.metrics.statistics import RatioOfSums, RunningMean
from prune2drive.report.camera_names import CameraNames
from prune2drive.report.finished_run import FinishedRun, ScoredRow
from prune2drive.sample import Prediction

Pair = tuple[ScoredRow, ScoredRow | None]
Part = tuple[str, str]


class Scores:
    """The scores of some questions, in the run and, where there is one, with all tokens."""

    def __init__(self) -> None:
        self.pruned, self.full, self.change = RunningMean(), RunningMean(), GroupedMean()

    def add(self, pruned: float, full: float | None, group: str) -> None:
        """Adds a question.

        Args:
            pruned: its score in the run.
            full: its score with all tokens; None where nothing is known of it.
            group: its scene or, where that is unknown, its frame.
        """
        self.pruned.add(pruned)
        if full is not None:
            self.full.add(full)
            self.change.add(pruned - full, group)

    @property
    def n(self) -> int:
        """The number of questions."""
        return self.pruned.count

    def average_to(self, value: float | None) -> bool:
        """Returns whether a metric is the mean of the run's scores."""
        return value is not None and self.n > 0 and abs(self.pruned.value - value) < 1e-6

    def difference(self) -> Interval | None:
        """Returns the paired difference from all tokens; None where there is nothing to compare, or a single scene."""
        return self.change.interval() if self.full.count == self.n else None


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
    coverage: dict[Part, Coverage] = field(default_factory=lambda: defaultdict(Coverage))


def compare(pruned: FinishedRun, full: FinishedRun | None) -> Paired:
    """Reads the rows of both runs once.

    Args:
        pruned: the run.
        full: the same questions with all tokens.
    """
    found = Paired()
    cameras: list[str] = []
    names = CameraNames(cameras)
    objects = _Objects(found.coverage)
    rows = pruned.scored_rows()
    pairs: Iterable[Pair] = _pairs(rows, full.scored_rows()) if full else ((each, None) for each in rows)
    for ours, theirs in pairs:
        row, other = ours.row, theirs.row if theirs else None
        if row.error is not None or (full and (other is None or other.error is not None)):
            continue
        if new := [camera for camera in row.full_counts if camera not in cameras]:
            cameras += new
            names = CameraNames(cameras)
        group = row.scene or row.frame or row.id
        objects.add(row, other, group)
        before_of = theirs.parts if theirs else {}
        for key in ours.parts.keys() & before_of.keys():
            found.parts[key].add(ours.parts[key], before_of[key], group)
        score, before = ours.score, theirs.score if theirs else None
        if score is None or (full and before is None):
            continue
        places = names.mentioned(f"{row.question}\n{row.reference or ''}")
        parts = [found.scores, *(found.by_camera[cameras[place]] for place in places)]
        for part in [*parts, found.by_kind[row.kind]] if row.kind else parts:
            part.add(score, before, group)
    objects.flush()
    return found


class _Objects:
    """Counts the objects of a scene, which then enter the coverage together.

    Args:
        coverage: part -> coverage; changed in place.
    """

    def __init__(self, coverage: dict[Part, Coverage]) -> None:
        self.coverage, self.group = coverage, ""
        self._counts: dict[Part, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._has_full = False

    def add(self, row: Prediction, other: Prediction | None, group: str) -> None:
        """Adds the objects of a question."""
        if group != self.group:
            self.flush()
            self.group, self._has_full = group, other is not None
        before = {tuple(key): covered for *key, covered, _ in other.objects} if other else {}
        for camera, size, label, covered, objects in row.objects:
            full = before.get((camera, size, label), 0)
            for part in (("size", size), ("class", label), ("camera", camera), ("all", "all objects")):
                count = self._counts[part]
                count[0] += covered
                count[1] += full
                count[2] += objects

    def flush(self) -> None:
        """Adds what was counted to the coverage."""
        for part, (covered, full, objects) in self._counts.items():
            self.coverage[part].add(self.group, covered, full if self._has_full else None, objects)
        self._counts.clear()


def _pairs(rows: Iterable[ScoredRow], others: Iterable[ScoredRow]) -> Iterator[Pair]:
    """Yields each row with the other run's row of the same question; holds few of them where the orders agree."""
    ours: dict[str, ScoredRow] = {}
    theirs: dict[str, ScoredRow] = {}
    for one, other in zip_longest(rows, others):
        ours |= {one.row.id: one} if one else {}
        theirs |= {other.row.id: other} if other else {}
        for each in (one, other):
            if each and each.row.id in ours and each.row.id in theirs:
                yield ours.pop(each.row.id), theirs.pop(each.row.id)
    yield from ((each, None) for each in ours.values())


def normal(share: RatioOfSums) -> Interval:
    """Returns a ratio with its normal interval."""
    return share_interval(share.value, share.stderr, share.denominator)
