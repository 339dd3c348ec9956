"""Shows a search as one self-contained page: `report.html` in the sweep's folder.

    python -m prune2drive.search.page SWEEP_FOLDER

writes the page again, also while the search is running.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.metrics.intervals import Interval
from prune2drive.report.charts import bars
from prune2drive.report.comparison.findings import find
from prune2drive.report.comparison.page import sections
from prune2drive.report.comparison.write import save_charts
from prune2drive.report.page import Section, render
from prune2drive.search import charts
from prune2drive.search.study import FEWEST, Study
from prune2drive.search.trials import Trial, best, has_one_total, pareto

REPORT = "report.html"
TEST = "test"
"""The folder of the runs on the test split."""


def write_search_report(folder: Path, study: Study) -> Path:
    """Writes `report.html` into the sweep's folder, and its charts as PNG and SVG into `charts/`.

    Returns:
        The page's path.

    Raises:
        InputError: the folder cannot be written.
    """
    trials = sorted(study.trials, key=lambda trial: trial.number)
    about, verdict = study.about, study.verdict
    shown = [
        _winner(study),
        *(_tested(verdict, trials) if verdict else []),
        *_compared(folder),
        _history(trials),
        _importance(study),
        _front(trials),
        *(_failures(trials) if any(trial.error for trial in trials) else []),
        *([Section("All trials", rows=_table(trials), folded=True)] if trials else []),
    ]
    html = render(
        "sections.html",
        title=f"Keep ratios of {about['model']} on {about['dataset']}" if about else f"Keep ratios: {study.name}",
        sentence=_sentence(verdict, trials),
        facts=_facts(study, trials),
        sections=shown,
    )
    save_charts(folder, shown)
    write_atomically(folder / REPORT, [html])
    return folder / REPORT


def _sentence(verdict: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    """Returns the result so far."""
    if not verdict:
        return "There is no verdict yet: validation and test follow the last trial."
    later = len(trials) - verdict["trials"]
    return verdict["sentence"] + (f" {later} more trials have ended since." if later > 0 else "")


def _facts(study: Study, trials: Sequence[Trial]) -> dict[str, str]:
    """Returns what the search was, by name."""
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
        symmetric = ", the same for left and right" if identity["symmetric"] else ""
        facts["space"] = f"{identity['space']}{total}, each from {identity['low']:g} to 1{symmetric}"
        facts["objective"] = f"R - {identity['penalty']:g} * sum of the ratios, R = {reward}"
    if top := best(trials):
        facts["best"] = f"trial {top.number}: objective {top.objective:.4f}, R {top.reward:.4f}"
    return facts


def _winner(study: Study) -> Section:
    winner = study.winner
    if winner is None:
        return Section("Best ratios", "No trial has succeeded.")
    heading = f"{'The winner' if study.verdict else 'Best ratios so far'}: trial {winner.number}"
    note = f"The line is the same total shared out evenly, {winner.mean:.3f} for each camera."
    return Section(heading, note, [bars("winner", winner.ratios, winner.mean)])


def _tested(verdict: Mapping[str, Any], trials: Sequence[Trial]) -> list[Section]:
    tested = [["ratios", "R", "searched minus these, with 95 % interval"]]
    for result in verdict["tested"]:
        margin = ""
        if result["ahead"]:
            value, low, high = result["ahead"]
            margin = f"{Interval(value, low, high, n=0):+.4f}"
        tested.append([result["name"], _number(result["reward"]), margin])
    by_number = {trial.number: trial for trial in trials}
    validated = _table([by_number[finalist["trial"]] for finalist in verdict["validated"]])
    objectives = ["objective, validation", *(_number(finalist["objective"]) for finalist in verdict["validated"])]
    paired = "Differences are paired by question, their intervals bootstrapped over frames."
    return [
        Section("On the test split", paired, rows=tested),
        Section(
            "Finalists on the validation split",
            rows=[[*row, objective] for row, objective in zip(validated, objectives, strict=True)],
        ),
    ]


def _compared(folder: Path) -> list[Section]:
    """Returns the comparison of the runs on the test split: by kind of question, and what each camera keeps."""
    found = find([folder / TEST]) if (folder / TEST).is_dir() else None
    return sections(found, folder, "The test split: ") if found and found.differences else []


def _history(trials: Sequence[Trial]) -> Section:
    if best(trials) is None:
        return Section("History", "No trial has succeeded.")
    note = "The objective of each trial, and the best so far; crosses are trials that failed."
    return Section("History", note, [charts.history(trials)])


def _importance(study: Study) -> Section:
    values = study.importance()
    if not values:
        note = f"Not enough data: at least {FEWEST} successful trials with different objectives are needed."
        return Section("Importance", note)
    what = "weight" if study.identity.get("space") == "simplex" else "ratio"
    note = f"How far each {what} decides whether a trial's {study.explained} is among the best (PED-ANOVA); sum 1."
    return Section("Importance", note, [bars("importance", values)])


def _front(trials: Sequence[Trial]) -> Section:
    heading, front = "Reward and kept share", pareto(trials)
    if has_one_total(trials) or not front:
        share = f", {trials[0].mean:g} of the tokens" if trials else ""
        return Section(heading, f"All trials keep the same total{share}, so there is no front.")
    note = "Coloured points are the Pareto front: no other trial has a higher R for no larger total."
    return Section(heading, note, [charts.front(trials)], _table(front))


def _failures(trials: Sequence[Trial]) -> list[Section]:
    numbers: dict[str, list[str]] = {}
    for trial in trials:
        if trial.error:
            numbers.setdefault(trial.error, []).append(str(trial.number))
    rows = [["error", "trials"], *([error, ", ".join(failed)] for error, failed in numbers.items())]
    return [Section("Failed trials", "error.txt in a trial's folder has its traceback.", rows=rows)]


def _table(trials: Sequence[Trial]) -> list[list[str]]:
    """Returns a table of trials, the header first."""
    rows = [
        [str(trial.number), *map(_number, [*trial.ratios.values(), trial.mean, trial.reward, trial.objective])]
        for trial in trials
    ]
    return [["trial", *trials[0].ratios, "mean", "R", "objective"], *rows]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


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
