"""Shows which tokens were kept of each question: six photos with the tokens' grid, for one run or several.

The section is self-contained: style, script, questions and photos are inside it, and any page can include it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from markupsafe import Markup

from prune2drive.cameras import arranged, short_name
from prune2drive.report.camera_names import CameraNames
from prune2drive.report.finished_run import FinishedRun
from prune2drive.report.page import render
from prune2drive.report.photos import Photos
from prune2drive.results.selections import Selection, Selections
from prune2drive.sample import Prediction

LIMIT = 2000  # questions
ROOM = 6_000_000  # bytes of questions and selections
LABEL = 200  # characters of an object's
TEXT = 2000  # characters of a question or answer that are shown

Outcome = tuple[str | None, float | None, int]
"""A run's answer to a question, its score, and which of all selections it was given with."""


def explorer(
    runs: Mapping[str, Path], limit: int = LIMIT, photo_bytes: int | None = None, asked: Collection[str] | None = None
) -> Markup:
    """Returns the token explorer of runs over the same questions; empty where none of them recorded what it draws.

    The worst questions come first: those which runs answer worse than the first run does, then other wrong ones. The
    questions that were recorded are shown in this order until there is no more room.

    Args:
        runs: a run's name -> its folder. The first is what others are compared with.
        limit: how many questions to show at most.
        photo_bytes: what the photos may take together; None is `photos.ROOM`. Further questions show their grids alone.
        asked: ids to choose from; None for all.
    """
    return explore({name: FinishedRun.read(folder) for name, folder in runs.items()}, limit, photo_bytes, asked)


def explore(
    runs: Mapping[str, FinishedRun],
    limit: int = LIMIT,
    photo_bytes: int | None = None,
    asked: Collection[str] | None = None,
) -> Markup:
    """Returns the token explorer of runs, as `explorer`, but of runs that were read before."""
    recorded = list(dict.fromkeys(each["id"] for run in runs.values() for each in Selections(run.folder)))
    asked_for = {id for id in recorded if asked is None or id in asked}
    scores = [_scores(run, asked_for) for run in runs.values()] if asked_for else []
    chosen = _worst_first([id for id in recorded if id in asked_for], scores)[:limit]
    if not chosen:
        return Markup("")
    content = _Content(list(runs), chosen)
    orders = [content.read_selections(run) for run in runs.values()]
    for number, (run, order) in enumerate(zip(runs.values(), orders, strict=True)):
        content.read_answers(number, run.rows, scores[number], order)
    shown = content.shown()
    photos = Photos.of(runs.values(), photo_bytes)
    frames = [photos.frame(row, content.cameras) for row in content.frames.values()]
    data = content.as_json(shown) | {"photos": photos.encoded, "frames": _with_objects(frames, content)}
    planned = next(iter(runs.values())).run.get("counts", {}).get("planned", len(recorded))
    return Markup(
        render(
            "explorer.html",
            data=Markup(safe_json(data)),
            count=len(shown),
            planned=planned,
            names=list(runs),
            missing_photos=photos.note,
        )
    )


def safe_json(value: Any) -> str:
    """Returns JSON that can stand inside a script element: ASCII, and without what ends or begins an element."""
    text = json.dumps(value, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _scores(run: FinishedRun, ids: Collection[str]) -> dict[str, float]:
    """Returns question id -> score, of those of the questions that have one."""
    return {each.row.id: each.score for each in run.scored_rows() if each.score is not None and each.row.id in ids}


def _worst_first(ids: Sequence[str], scores: Sequence[Mapping[str, float]]) -> list[str]:
    """Orders questions by how far later runs score below the first, then by their scores; unscored ones are last."""

    def rank(id: str) -> tuple[float, float]:
        found = [each[id] for each in scores if id in each]
        if len(found) < len(scores) or not found:
            return 1.0, 2.0
        change = fmean(found[1:]) - found[0] if len(found) > 1 else 0.0
        return min(change, 0.0), fmean(found)

    return sorted(ids, key=rank)


class _Content:
    """Collects what the explorer shows of chosen questions, with equal grids and selections once.

    Args:
        names: the runs' names.
        ids: the questions, in the order in which they are shown.
    """

    def __init__(self, names: Sequence[str], ids: Sequence[str]) -> None:
        self.names = names
        self.rows: dict[str, Prediction | None] = dict.fromkeys(ids)
        self.outcomes: dict[str, list[Outcome | None]] = {id: [None] * len(names) for id in ids}
        self.recorded: dict[str, Selection] = {}
        self.cameras: list[str] = []
        self.columns = 0
        self.frames: dict[str, Prediction] = {}
        self._grids: dict[str, int] = {}
        self._picks: dict[str, int] = {}

    def read_selections(self, run: FinishedRun) -> dict[str, Mapping[str, str]]:
        """Takes what a run recorded of the chosen questions; returns the orders in which it picked tokens."""
        orders = {}
        for selection in Selections(run.folder):
            if (id := selection["id"]) in self.rows:
                orders[id] = selection.get("order") or {}
                self.recorded.setdefault(id, selection)
        found = dict.fromkeys(camera for each in self.recorded.values() for camera in each["grids"])
        self.cameras, self.columns = arranged(found)
        return orders

    def read_answers(
        self,
        number: int,
        rows: Iterable[Prediction],
        scores: Mapping[str, float],
        orders: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Takes a run's answers to the chosen questions, and what it kept."""
        for row in rows:
            if row.id in self.rows:
                self.rows[row.id] = self.rows[row.id] or row
                picks = [_packed(row, camera, orders.get(row.id, {})) for camera in self.cameras]
                place = self._picks.setdefault(json.dumps(picks), len(self._picks))
                self.outcomes[row.id][number] = (_shortened(row.answer), scores.get(row.id), place)

    def shown(self) -> list[list[Any]]:
        """Returns the questions for which there is room, and notes their frames."""
        names = CameraNames(self.cameras)
        frames: dict[str, int] = {}
        shown: list[list[Any]] = []
        room = ROOM
        for id, row in self.rows.items():
            if row is None:
                continue
            key = "/".join(filter(None, (row.scene, row.frame))) or row.id
            grids = json.dumps([self.recorded[id]["grids"].get(camera) for camera in self.cameras])
            line = [
                _shortened(id),
                frames.setdefault(key, len(frames)),
                self._grids.setdefault(grids, len(self._grids)),
                row.kind,
                _shortened(row.question),
                _shortened(row.reference),
                names.mentioned(f"{row.question}\n{row.reference or ''}"),
                self.outcomes[id],
            ]
            room -= len(json.dumps(line))
            if room < 0 and shown:
                break
            self.frames.setdefault(key, row)
            shown.append(line)
        return shown

    def as_json(self, shown: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Returns everything but photos and objects; the JSON's fields are read in explorer.js."""
        return {
            "names": self.names,
            "cameras": self.cameras,
            "short": [short_name(camera) for camera in self.cameras],
            "columns": self.columns,
            "grids": [json.loads(grid) for grid in self._grids],
            "picks": [json.loads(picks) for picks in self._picks],
            "questions": shown,
        }


def _with_objects(frames: Sequence[Sequence[int]], content: _Content) -> list[list[Any]]:
    """Returns the photos of each frame, and its objects with their camera's number."""
    places = {camera: number for number, camera in enumerate(content.cameras)}
    return [
        [photos, [[places[camera], *box, label[:LABEL]] for camera, *box, label in content.recorded[row.id]["objects"]]]
        for photos, row in zip(frames, content.frames.values(), strict=True)
    ]


def _packed(row: Prediction, camera: str, order: Mapping[str, str]) -> str | None:
    """Returns what a camera kept: `a`ll, an `o`rder, or a `m`ask; None where the question does not show it."""
    if camera not in row.full_counts:
        return None
    if row.kept_counts.get(camera) == row.full_counts[camera]:
        return "a"
    return f"o{order[camera]}" if camera in order else f"m{row.kept.get(camera, '')}"


def _shortened(text: str | None) -> str | None:
    if text is None or len(text) <= TEXT:
        return text
    return f"{text[:TEXT]} … ({len(text) - TEXT:,} more characters)"
