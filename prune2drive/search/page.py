"""A search for keep ratios as one self-contained page: `report.html` in the sweep's folder.

    python -m prune2drive.search.page SWEEP_FOLDER

writes it again, while the search goes on or afterwards.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from prune2drive.cameras import short_name
from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.report.style import render
from prune2drive.search.charts import Mark, bars, plot
from prune2drive.search.study import FEWEST, Study
from prune2drive.search.trials import Trial, best, best_so_far, has_one_total, pareto

REPORT = "report.html"


class Section(NamedTuple):
    """A part of the page: a chart or a table, or a sentence in its place.

    Args:
        rows: of a table, the header first.
    """

    heading: str
    note: str = ""
    chart: Markup | None = None
    rows: Sequence[Sequence[str]] = ()


def write_search_report(folder: Path, study: Study) -> Path:
    """Writes `report.html` into the sweep's folder, whole or not at all.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be written.
    """
    trials = sorted(study.trials, key=lambda trial: trial.number)
    about, verdict = study.about, study.verdict
    html = render(
        BODY,
        title=f"Keep ratios of {about['model']} on {about['dataset']}" if about else f"Keep ratios: {study.name}",
        sentence=_sentence(verdict, trials),
        style=CHARTS,
        facts=_facts(study, trials),
        sections=[
            _winner(verdict, trials),
            *(_tested(verdict, trials) if verdict else []),
            _history(trials),
            _importance(study),
            _front(trials),
            *([_failures(trials)] if any(trial.error for trial in trials) else []),
        ],
    )
    write_atomically(folder / REPORT, [html])
    return folder / REPORT


def _sentence(verdict: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    """What came of it so far, in plain words."""
    if not verdict:
        return "There is no verdict yet: validation and test follow the last trial."
    later = len(trials) - verdict["trials"]
    return verdict["sentence"] + (f" This was said before the last {later} trials." if later > 0 else "")


def _facts(study: Study, trials: Sequence[Trial]) -> dict[str, str]:
    about, identity = study.about, study.identity
    failed = sum(bool(trial.error) for trial in trials)
    planned = f" of {about['trials']}" if about else ""
    facts = {"study": study.name, "trials": f"{len(trials)}{planned}, {failed} failed"}
    if about:
        sizes = ", ".join(f"{name} {size}" for name, size in about["questions"].items())
        facts |= {"proposed by": f"{about['engine']} {about['sampler']}", "pruner": about["pruner"], "questions": sizes}
    if identity:
        reward = " + ".join(f"{weight:g} {key}" for key, weight in identity["objective"].items())
        total = f", mean {identity['keep']:g}" if "keep" in identity else ""
        symmetric = ", left and right alike" if identity["symmetric"] else ""
        facts["space"] = f"{identity['space']}{total}, each from {identity['low']:g} to 1{symmetric}"
        facts["objective"] = f"R - {identity['penalty']:g} * sum of the ratios, R = {reward}"
    if winner := best(trials):
        facts["best"] = f"trial {winner.number}: objective {winner.objective:.4f}, R {winner.reward:.4f}"
    return facts


def _history(trials: Sequence[Trial]) -> Section:
    heading = "History"
    if best(trials) is None:
        return Section(heading, "No trial has succeeded.")
    marks = [Mark(trial.number, trial.objective, _title(trial)) for trial in trials]
    tops = zip(trials, best_so_far(trials), strict=True)
    line = [(float(trial.number), top) for trial, top in tops if top is not None]
    note = "The objective of each trial, and the best so far; crosses are trials that failed."
    return Section(heading, note, plot(marks, line, ("trial", "objective")))


def _winner(verdict: Mapping[str, Any], trials: Sequence[Trial]) -> Section:
    number = verdict.get("winner")
    winner = next((trial for trial in trials if trial.number == number), best(trials))
    if winner is None:
        return Section("Best ratios", "No trial has succeeded.")
    heading = f"{'Best ratios so far' if number is None else 'The winner'}: trial {winner.number}"
    note = f"The line is the same total shared out evenly, {winner.mean:.3f} for each camera."
    return Section(heading, note, bars(winner.ratios, heading, winner.mean, f"uniform: {winner.mean:.4f}"))


def _importance(study: Study) -> Section:
    heading = "Importance"
    values = study.importance()
    if not values:
        return Section(heading, f"Not to be told: it takes {FEWEST} successful trials that are not all worth the same.")
    what = "weight" if study.identity.get("space") == "simplex" else "ratio"
    note = f"How far each {what} decides whether a trial's {study.explained} is among the best (PED-ANOVA); sum 1."
    return Section(heading, note, bars(values, heading))


def _front(trials: Sequence[Trial]) -> Section:
    heading = "Reward and kept share"
    front = pareto(trials)
    if has_one_total(trials) or not front:
        share = f", {trials[0].mean:g} of the tokens" if trials else ""
        return Section(heading, f"All trials keep the same total{share}, so there is no front.")
    numbers = {trial.number for trial in front}
    done = [trial for trial in trials if trial.reward is not None]
    kinds = {trial.number: "strong" if trial.number in numbers else "dot" for trial in done}
    marks = [Mark(trial.mean, trial.reward, _title(trial), kinds[trial.number]) for trial in done]
    line = [(trial.mean, trial.reward or 0.0) for trial in front]
    note = "Strong trials are the Pareto front: no other trial has a higher R for no larger total."
    rows = [_header(front[0]), *map(_row, front)]
    return Section(heading, note, plot(marks, line, ("mean ratio", "R")), rows)


def _tested(verdict: Mapping[str, Any], trials: Sequence[Trial]) -> list[Section]:
    tested = [["ratios", "R", "searched minus these", "95 % interval"]]
    for each in verdict["tested"]:
        value, *interval = each["ahead"] or (None,)
        between = f"[{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else ""
        tested.append([each["name"], _number(each["reward"]), "" if value is None else f"{value:+.4f}", between])
    finalists = {trial.number: trial for trial in trials}
    rows = [(finalists[each["trial"]], each["objective"]) for each in verdict["validated"]]
    validated = [_header(rows[0][0], "objective, validation")]
    validated += [[*_row(trial), _number(value)] for trial, value in rows]
    paired = "Differences are paired by question, their intervals bootstrapped over frames."
    return [
        Section("On the test split", paired, rows=tested),
        Section("Finalists on the validation split", rows=validated),
    ]


def _failures(trials: Sequence[Trial]) -> Section:
    numbers: dict[str, list[str]] = {}
    for trial in trials:
        if trial.error:
            numbers.setdefault(trial.error, []).append(str(trial.number))
    rows = [["error", "trials"], *([error, ", ".join(each)] for error, each in numbers.items())]
    return Section("Failed trials", "error.txt in a trial's folder has its traceback.", rows=rows)


def _header(trial: Trial, *more: str) -> list[str]:
    return ["trial", *trial.ratios, "mean", "R", "objective", *more]


def _row(trial: Trial) -> list[str]:
    return [str(trial.number), *map(_number, [*trial.ratios.values(), trial.mean, trial.reward, trial.objective])]


def _title(trial: Trial) -> str:
    """A trial's tooltip."""
    ratios = " ".join(f"{short_name(camera)} {ratio:.3f}" for camera, ratio in trial.ratios.items())
    worth = f"failed: {trial.error}" if trial.error else f"R {trial.reward:.4f}, objective {trial.objective:.4f}"
    return f"trial {trial.number}: {worth}\n{ratios}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


CHARTS = """\
svg { display: block; width: 100%; max-width: 60rem; margin-top: .8rem; }
svg text { fill: var(--faint); font-size: 12px; }
.grid { stroke: var(--line); }
.dot { fill: var(--faint); fill-opacity: .6; }
.strong, .bar { fill: var(--accent); }
.line { fill: none; stroke: var(--accent); stroke-width: 1.5; }
.cross { stroke: var(--bad); stroke-width: 1.5; }
.mark { stroke: var(--ink); stroke-dasharray: 4 3; }
.card + .card { margin-top: 1rem; }
.scroll { overflow-x: auto; }
.scroll td { white-space: pre-line; }
p { margin: 0; }
"""

BODY = """\
<p class="card"><b>{{ sentence }}</b></p>
<dl class="card">
{% for heading, text in facts.items() %}
<dt>{{ heading }}</dt><dd>{{ text }}</dd>
{% endfor %}
</dl>
{% for section in sections %}
<section class="card">
<h3>{{ section.heading }}</h3>
{% if section.note %}
<p class="faint">{{ section.note }}</p>
{% endif %}
{% if section.chart %}
{{ section.chart }}
{% endif %}
{% if section.rows %}
<div class="scroll">
<table>
{% for row in section.rows %}
{% set tag = "th" if loop.first else "td" %}
<tr>{% for cell in row %}<{{ tag }}>{{ cell }}</{{ tag }}>{% endfor %}</tr>
{% endfor %}
</table>
</div>
{% endif %}
</section>
{% endfor %}
</body>
</html>
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Write a search's report.html again, from its study.")
    parser.add_argument("folder", type=Path, metavar="SWEEP_FOLDER")
    folder = parser.parse_args(arguments).folder
    try:
        print(write_search_report(folder, Study.open(folder)))
    except InputError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
