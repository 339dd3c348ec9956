"""Renders a comparison as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from prune2drive.metrics.intervals import RESAMPLES
from prune2drive.metrics.simultaneous import Margin
from prune2drive.report import numbers
from prune2drive.report.comparison.charts import HeatMap, about_camera_heat, camera_heat, front_charts, kind_heat
from prune2drive.report.comparison.findings import Findings
from prune2drive.report.comparison.runs import Run
from prune2drive.report.comparison.tables import overview
from prune2drive.report.comparison.verdict import verdict
from prune2drive.report.page import Link, Section, Tinted, render

FEW = 20  # groups below which a bootstrap is rough
REPORT = "report.html"  # a run's page
LONG = 15  # rows above which a table that repeats others is folded
CLEAR = 0.45  # tint of a difference that is more than noise


def page(found: Findings, sections: Sequence[Section], explorer: Markup | str = "") -> str:
    """Returns the page.

    Args:
        found: what it shows.
        sections: its parts.
        explorer: the token explorer of the same runs.
    """
    return render(
        "comparison.html",
        title=_title(found),
        verdict=verdict(found),
        faults=[str(fault) for fault in found.faults],
        sections=sections,
        explorer=explorer,
        facts={"the same in all runs": " ".join(f"{name}={value}" for name, value in found.common.items())},
        sources=_sources(found),
    )


def sections(found: Findings, folder: Path | None = None, about: str = "") -> list[Section]:
    """Returns the parts of the page that other pages may show too.

    Args:
        found: what they show.
        folder: where the page will be; runs inside it are linked.
        about: what their headings begin with.
    """
    charts = list(front_charts(found).values())
    note = "Thin lines join the budgets of one method; upright bars are 95 % intervals of the score."
    parts = [
        Section("All runs", _method(found), rows=_overview(found, folder)),
        Section("Score against cost", note, charts) if charts else None,
        _budgets(found),
        *_kinds(found),
        _about_cameras(found),
        _cameras(found),
    ]
    return [part._replace(heading=f"{about}{part.heading}") for part in parts if part]


def _title(found: Findings) -> str:
    about = [found.common[name] for name in ("model", "dataset") if name in found.common]
    return " · ".join([f"Comparison of {len(found.runs)} run{'s' if len(found.runs) > 1 else ''}", *about])


def _method(found: Findings) -> str:
    """Says how the differences of the page were computed."""
    if not found.differences or not found.questions:
        return ""
    questions = found.questions
    if not found.differences.margin:
        return f"All questions are of one {questions.unit}, so that differences have no interval."
    told = (
        f"Differences are paired by question, over {questions.score_RN.shape[1]:,} questions of {questions.groups:,} "
        f"{questions.unit}s, in percentage points. Their 95 % intervals hold for all runs at once, so that none stands "
        f"out by chance (max-t bootstrap over {questions.unit}s, {RESAMPLES:,} resamples; Westfall and Young, 1993). "
        "Coloured: more than noise."
    )
    if questions.groups < FEW:
        told += f" With {questions.groups} {questions.unit}s they are rough."
    if questions.left_out:
        told += (
            f" {questions.left_out:,} questions that some run lacks are left out of the differences; the other columns "
            "are of all questions of each run."
        )
    if found.differs_from_score and found.worth:
        told += (
            f" {found.columns[found.worth].label.capitalize()} has no interval of its difference: this score is of all "
            f"answers together. What is paired is {questions.label}."
        )
    return told


def _overview(found: Findings, folder: Path | None) -> list[list[str | Tinted | Link]]:
    """Returns the table of all runs, each of which leads to its page where that lies in the same folder."""
    header, *rows = [[_tinted(told.text, told.margin) for told in row] for row in overview(found)]
    linked = [[_page_of(run, str(name), folder), *cells] for run, (name, *cells) in zip(found.runs, rows, strict=True)]
    return [list(header), *linked]


def _page_of(run: Run, name: str, folder: Path | None) -> str | Link:
    page = run.path / REPORT
    if folder is None or not page.is_relative_to(folder.resolve()) or not page.is_file():
        return name
    return Link(name, quote(str(page.relative_to(folder.resolve()))))


def _tinted(text: str, margin: Margin | None) -> str | Tinted:
    if margin is None or not margin.is_clear:
        return text
    return Tinted(text, CLEAR if margin.value > 0 else -CLEAR)


def _budgets(found: Findings) -> Section | None:
    """Returns the table of what is best at each budget."""
    budgets = found.differences.budgets if found.differences else ()
    if not any(len(budget.runs) > 1 for budget in budgets):
        return None
    rows: list[list[str | Tinted]] = [["run", "visual tokens", "score", "points the best is ahead"]]
    for budget in budgets:
        for run in budget.runs:
            margin = budget.ahead.get(run)
            ahead = _tinted(numbers.points(margin), margin) if margin else "best" if run is budget.best else ""
            score = found.differences.score[run] if found.differences else 0.0
            rows.append([run.label, numbers.percent(budget.share), numbers.percent(score), ahead])
    note = "Corrected for all pairs of a budget, since which run is best is read off the same answers."
    return Section("Best at each budget", note, rows=rows, folded=len(rows) > LONG)


def _kinds(found: Findings) -> list[Section]:
    """Returns the scores by kind of question as a heat map, and their differences as a table."""
    heat = kind_heat(found)
    if not heat or not found.questions or not found.differences:
        return []
    counts = np.bincount(found.questions.kind_N)
    header = ["run", *(f"{kind} ({count:,})" for kind, count in zip(heat.columns, counts, strict=True))]
    baseline, margins = found.baseline.label, found.differences.kind_margin
    note = (
        f"{found.questions.label.capitalize()} in percent, and the number of questions. The stronger the colour, the "
        f"further from {baseline}."
    )
    told = [Section("By kind of question", note, rows=[header, *_heated(heat, "gap")])]
    if margins:
        rows = [
            [run.label, *(_tinted(numbers.points(each), each) for each in row.values())] for run, row in margins.items()
        ]
        note = "Points, with 95 % intervals that hold for all of this table at once. Coloured: more than noise."
        told.append(Section(f"By kind of question, against {baseline}", note, rows=[header, *rows], folded=True))
    return told


def _about_cameras(found: Findings) -> Section | None:
    """Returns the scores of the questions that name each camera."""
    heat = about_camera_heat(found)
    if not heat or not found.questions:
        return None
    note = (
        f"{found.questions.label.capitalize()} in percent, of the questions that name a camera in their text or "
        f"reference, and their number. The stronger the colour, the further from {found.baseline.label}."
    )
    return Section("By camera that a question names", note, rows=[["run", *heat.columns], *_heated(heat, "gap")])


def _cameras(found: Findings) -> Section | None:
    """Returns the tokens that each run kept of each camera."""
    heat = camera_heat(found)
    if not heat:
        return None
    note = "Mean number of kept visual tokens. Coloured: more, or in grey less, than the run's mean over its cameras."
    return Section("Tokens of each camera", note, rows=[["run", *heat.columns], *_heated(heat, "level")])


def _heated(heat: HeatMap, meaning: str) -> list[list[str | Tinted]]:
    """Returns the rows of a heat map's table."""
    return [
        [name, *(Tinted(text, value or 0.0, meaning) for text, value in zip(texts, values, strict=True))]
        for name, texts, values in zip(heat.rows, heat.texts, heat.heat, strict=True)
    ]


def _sources(found: Findings) -> Sequence[Sequence[str]]:
    rows = [["run", "options", "commit", "finished", "folder"]]
    for run in found.runs:
        git = run.run.get("git") or {}
        commit = f"{str(git.get('commit') or '')[:9]}{' with changes' if git.get('dirty') else ''}"
        rows.append([run.label, run.job, commit, str(run.run.get("finished") or ""), str(run.path)])
    return rows
