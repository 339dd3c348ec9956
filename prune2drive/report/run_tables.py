"""Makes the tables of a run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from prune2drive.cameras import short_name
from prune2drive.metrics import object_coverage
from prune2drive.metrics.base import Column
from prune2drive.metrics.intervals import Interval
from prune2drive.report import numbers
from prune2drive.report.columns import ALL_TOKENS, PRUNED, spread
from prune2drive.report.page import Link
from prune2drive.report.paired import Coverage, Paired, Scores, normal
from prune2drive.results.run_folder import IN_FULL

STAR = f"{numbers.NBSP}*"
NO_INTERVAL = "* no interval: this score is of all answers together, or what each answer got is not kept"

Metrics = Mapping[str, float]


class Table(NamedTuple):
    """A table of a page.

    Args:
        heading: what it shows.
        header: the names of its columns.
        rows: its cells, the row's name first; links lead to the questions behind a number.
        note: a sentence about it.
    """

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    note: str = ""


def scores_table(metrics: Metrics, columns: Mapping[str, Column], paired: Paired) -> Table | None:
    """Returns the scores beside those with all tokens, without any that repeats another.

    Args:
        metrics: metrics.json's content.
        columns: how tables show its keys.
        paired: the scores of each question, of which metrics may be the means.
    """
    has_full = any(IN_FULL + key in metrics for key, column in columns.items() if column.is_share)
    rows: list[list[str]] = []
    for key, column in columns.items():
        if not column.is_share or key in object_coverage.COLUMNS or not column.in_run or key not in metrics:
            continue
        cells = [_cell(metrics, key, column)]
        if has_full:
            scores = paired.scores if key == "score" else paired.parts.get(key)
            cells = [_cell(metrics, IN_FULL + key, column), cells[0], _change(metrics, key, scores)]
        if "score" in metrics and key != "score" and _values(metrics, key) == _values(metrics, "score"):
            continue
        n = metrics.get(f"{key}_n")
        rows.append([column.label, *cells, "" if n is None else f"{n:,.0f}"])
    header = ["score", *([ALL_TOKENS, PRUNED, "change"] if has_full else ["value"]), "questions"]
    note = NO_INTERVAL if any(cell.endswith(STAR) for row in rows for cell in row) else ""
    return _table("Scores", header, rows, note)


def _values(metrics: Metrics, key: str) -> list[float | None]:
    return [metrics.get(f"{part}{key}{end}") for part in ("", IN_FULL) for end in ("", "_n", "_stderr")]


def _cell(metrics: Metrics, key: str, column: Column) -> str:
    if key not in metrics:
        return "not measured"
    interval = spread(metrics, key, column)
    return numbers.ranged(interval, column) if interval else numbers.shown(metrics[key], column)


def _change(metrics: Metrics, key: str, scores: Scores | None) -> str:
    """Returns the change of a metric, with its paired interval where it is the mean of these scores, else a star."""
    if IN_FULL + key not in metrics:
        return "unknown"
    change = metrics[key] - metrics[IN_FULL + key]
    alone = numbers.points(Interval(change, change, change, 0), with_range=False)
    if scores is None or not scores.average_to(metrics[key]):
        return alone + STAR
    paired = scores.difference()
    return numbers.points(paired) if paired else alone


def kinds_table(paired: Paired, linked: bool = False) -> Table | None:
    """Returns the scores by kind of question, those first that lost most.

    Args:
        paired: the scores.
        linked: whether rows lead to their questions in the token explorer.
    """
    if len(paired.by_kind) < 2:
        return None
    rows = [
        [
            _asking(kind.replace("_", " "), type=kind) if linked else kind.replace("_", " "),
            *_score_cells(paired.by_kind[kind], {"type": kind} if linked else {}),
        ]
        for kind in _by_loss(paired.by_kind)
    ]
    return _table("By type of question", ["type", *_score_header(paired.scores)], rows)


def cameras_table(paired: Paired, metrics: Metrics, linked: bool = False) -> Table | None:
    """Returns what each camera kept, and how questions that name it and its objects fared.

    Args:
        paired: the scores and coverage.
        metrics: metrics.json's content.
        linked: whether rows lead to the questions about their camera in the token explorer.
    """
    kept = {key.split("/")[1]: value for key, value in metrics.items() if _is_kept(key)}
    covered = {name: paired.coverage[part, name] for part, name in paired.coverage if part == "camera"}
    differ = len(set(kept.values())) > 1
    columns: dict[str, dict[str, Sequence[str | Link]]] = {}
    if differ:
        columns["tokens kept"] = {camera: [numbers.number(count)] for camera, count in kept.items()}
    if covered:
        columns["objects with a token"] = {camera: [_from_to(share)] for camera, share in covered.items()}
    if paired.by_camera:
        names = "|".join(f"{name} *" for name in _score_header(paired.scores))
        columns[names] = {
            camera: _score_cells(scores, {"camera": camera} if linked else {})
            for camera, scores in paired.by_camera.items()
        }
    if not columns:
        return None
    told = dict.fromkeys(camera for of in columns.values() for camera in of)
    cameras = [*_by_loss(paired.by_camera), *(camera for camera in told if camera not in paired.by_camera)]
    header = ["camera", *(name for names in columns for name in names.split("|"))]
    named = {camera: _asking(short_name(camera), camera=camera) for camera in paired.by_camera if linked}
    rows = [
        [
            named.get(camera, short_name(camera)),
            *(cell for names, of in columns.items() for cell in of.get(camera, _none(names))),
        ]
        for camera in cameras
    ]
    same = "" if differ or not kept else f"Every camera keeps {numbers.number(next(iter(kept.values())))} tokens."
    star = "* of questions that name the camera, in the question or its reference" if paired.by_camera else ""
    return _table("By camera", header, rows, " ".join(filter(None, (same, star))))


def _asking(text: str, **filters: str) -> Link:
    """Returns a link that sets the token explorer's filters, and no others."""
    return Link(text, f"#{urlencode(filters, errors='replace')}")


def _none(names: str) -> list[str]:
    return ["none"] * len(names.split("|"))


def _is_kept(key: str) -> bool:
    return key.startswith("tokens/") and key.endswith("/kept")


def coverage_table(paired: Paired) -> Table | None:
    """Returns the share of annotated objects that keep a token, by size and class."""
    rows = []
    for part in ("all", "size", "class"):
        found = {name: share for (which, name), share in paired.coverage.items() if which == part}
        if part != "all" and len(found) < 2:
            continue
        for name, share in sorted(found.items(), key=lambda item: -item[1].pruned.denominator)[:10]:
            cells = [numbers.share_range(normal(share.pruned))]
            if share.has_full:
                change = share.difference()
                cells = [
                    numbers.share_range(normal(share.full)),
                    *cells,
                    numbers.points(change) if change else "unknown",
                ]
            rows.append([name, *cells, f"{share.pruned.denominator:,}"])
    has_full = any(share.has_full for share in paired.coverage.values())
    header = ["objects", *([ALL_TOKENS, PRUNED, "change"] if has_full else ["with a token"]), "counted"]
    note = (
        "An object counts where the centre of a kept token lies in its box; each question counts its frame's objects."
    )
    return _table("Objects that keep a token", header, rows, note)


def _by_loss(groups: Mapping[str, Scores]) -> list[str]:
    def loss(name: str) -> float:
        part = groups[name]
        return part.pruned.value - (part.full.value if part.full.count else 0.0)

    return sorted(groups, key=loss)


def _score_header(scores: Scores) -> list[str]:
    return [ALL_TOKENS, PRUNED, "change", "questions"] if scores.full.count else ["score", "questions"]


def _score_cells(scores: Scores, filters: Mapping[str, str]) -> list[str | Link]:
    """Returns the cells of some questions' scores; the change leads to the lost answers where there are filters."""
    cells: list[str | Link] = [numbers.percent(scores.pruned.value)]
    if scores.full.count:
        change = scores.pruned.value - scores.full.value
        paired = scores.difference() or Interval(change, change, change, scores.n)
        told = numbers.points(paired, paired.low < paired.high)
        is_linked = filters and scores.change.least < 0
        cells = [
            numbers.percent(scores.full.value),
            *cells,
            _asking(told, **filters, answers="lost") if is_linked else told,
        ]
    return [*cells, f"{scores.n:,}"]


def _from_to(share: Coverage) -> str:
    after = numbers.percent(share.pruned.value)
    return f"{numbers.percent(share.full.value)} \N{RIGHTWARDS ARROW} {after}" if share.has_full else after


def _table(heading: str, header: Sequence[str], rows: Sequence[Sequence[str | Link]], note: str = "") -> Table | None:
    return Table(heading, header, rows, note) if rows else None
