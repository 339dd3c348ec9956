"""Writes what is known of the paper's claims in Markdown: published numbers, ours, and why some cannot be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

from experiments.claims import Claim
from experiments.comparison import KEPT, Row, runs_there
from experiments.found_runs import Found, FoundRuns
from experiments.runs import Options
from prune2drive.report.markdown import markdown_table

Lines = Iterator[str]


def summary(tables: Mapping[str, list[Row]], compared_there: Collection[str]) -> Lines:
    """Yields what contradicts the paper, then how many published differences agree or are within noise.

    Args:
        tables: name of a claim -> its jobs on the embedded benchmark.
        compared_there: names of the claims with comparable runs in the paper's setting.
    """
    compared = [(name, row) for name, rows in tables.items() for row in rows if row.verdict]
    counts = Counter(row.verdict for _, row in compared)
    for name, row in compared:
        if row.verdict == "contradicts":
            where = f"[{name}](#{name})"
            yield f"- {where}, {' '.join(row.job)}: {row.lead:+.1f} here, {row.published:+.1f} in the paper."
    if not counts["contradicts"]:
        yield "Nothing contradicts the paper."
    yield ""
    yield (
        f"Of {len(compared)} published differences that have runs here, {counts['agrees']} agree here, "
        f"{counts['contradicts']} contradict, and {counts['undecided']} cannot be told from 0. "
        f"Scores themselves can be compared for {len(compared_there)} of {len(tables)} claims: those with runs in the "
        "paper's setting."
    )


def of_claim(claim: Claim, rows: list[Row], found: FoundRuns) -> Lines:
    """Yields a claim's part of the page.

    Args:
        claim: the claim.
        rows: its jobs on the embedded benchmark.
        found: the runs that there are.
    """
    yield claim.says
    yield ""
    yield f"Published: {claim.source}. To compare scores, it needs"
    yield ""
    yield from (f"- {each}" for each in claim.needs)
    yield ""
    yield from ("```sh", *claim.commands(here=False), "```", "")
    yield from _there(claim, found)
    if isinstance(claim.counterpart, str):
        yield f"On MiniDrive its runs are those of [{claim.counterpart}](#{claim.counterpart})."
    else:
        yield from _here(claim, rows)
    if claim.notes:
        yield ""
        yield from (f"- {note}" for note in claim.notes)


def _there(claim: Claim, found: FoundRuns) -> Lines:
    """Yields the published numbers, beside them those of runs in the paper's setting, and what other runs lack."""
    runs = list(runs_there(claim, found))
    comparable = {job: run for job, run, reason in runs if not reason}
    if claim.published:
        columns = [_column(claim, key, number, comparable) for number, key in enumerate(claim.columns)]
        rows = [[*_values(job), *cells] for job, *cells in zip(claim.published, *columns, strict=True)]
        yield from markdown_table([*claim.sweep, *claim.columns], rows)
        yield ""
    for each in claim.also:
        yield f"- {each}"
    for job, run, reason in runs:
        yield f"- {' '.join(job)}, {run.folder.name}: {reason or f'n = {_questions(run)}, commit {run.commit}'}."
    if claim.also or runs:
        yield ""
    if not comparable:
        yield f"No run in this setting was found{', so the figures are the published ones' if claim.published else ''}."
        yield ""


def _here(claim: Claim, rows: list[Row]) -> Lines:
    """Yields the jobs on the embedded benchmark."""
    made = [row for row in rows if row.run]
    yield "On MiniDrive, where model and questions are others, so that only signs of differences can be compared:"
    yield ""
    yield from ("```sh", *claim.commands(here=True), "```", "")
    if made:
        reference = " ".join(f"{key}={value}" for key, value in claim.reference.items())
        header = [*claim.sweep, "visual tokens", "exact match", f"{reference} minus it", "in the paper", "verdict"]
        columns = len(header) if claim.published else len(header) - 2
        yield from markdown_table(header[:columns], [_row(row)[:columns] for row in made])
        yield ""
        runs = [row.run for row in made if row.run]
        trials = _each(run.trials for run in runs if run.trials)
        searched = f", the winner of {trials} trials each" if trials else ""
        yield f"n = {_each(map(_questions, runs))}{searched}; commit {_each(run.commit for run in runs)}."
    if len(made) < len(rows):
        command = f"python -m experiments.tables {claim.name} --run"
        yield f"{len(rows) - len(made)} of {len(rows)} runs are missing; `{command}` makes them."


def _column(claim: Claim, key: str, number: int, comparable: Mapping[Options, Found]) -> list[str]:
    """Returns the published numbers of a column, and ours with 95 % intervals where there are comparable runs."""
    values = [row[number] for row in claim.published.values()]
    places = max(len(str(value).partition(".")[2]) for value in values if value is not None)
    scale, cells = claim.columns[key], []
    for job, value in zip(claim.published, values, strict=True):
        cell = "" if value is None else f"{value:.{places}f}"
        run = comparable.get(job)
        if run and key in run.metrics:
            half = 1.96 * scale * run.metrics.get(f"{key}_stderr", 0)
            cell += f", ours {scale * run.metrics[key]:.{places}f} ± {half:.{places}f}"
        cells.append(cell)
    return cells


def _row(row: Row) -> list[str]:
    assert row.run is not None
    lead = "" if row.lead is None else f"{row.lead:+.1f}"
    published = "" if row.published is None else f"{row.published:+.1f}"
    return [*_values(row.job), f"{row.run.metrics[KEPT]:.0f}", f"{row.score:.1f}", lead, published, row.verdict]


def _values(job: Options) -> list[str]:
    return [option.split("=", 1)[1] for option in job]


def _questions(run: Found) -> int:
    return run.record["counts"]["done"]


def _each(values: Iterable[object]) -> str:
    return ", ".join(map(str, sorted(set(values))))
