"""Says in sentences which run is best, at which budget, and whether that is more than noise."""

from __future__ import annotations

from prune2drive.metrics.simultaneous import Margin
from prune2drive.report import numbers
from prune2drive.report.comparison.differences import Budget
from prune2drive.report.comparison.findings import Findings
from prune2drive.report.comparison.runs import Run

MOST = 6  # budgets that are told in sentences


def verdict(found: Findings) -> list[str]:
    """Returns a sentence for each budget, the largest first, or one for all runs where budgets are unknown."""
    if found.differences is None:
        return [_unpaired(found)]
    budgets = found.differences.budgets
    if not budgets:
        score = found.differences.score
        best = max(score, key=score.__getitem__)
        return [f"{best.label} is best: {_result(found, best)}."]
    told = [_at(found, budget) for budget in budgets[:MOST]]
    more = len(budgets) - MOST
    return [*told, f"{more} smaller budgets are in the table below."] if more > 0 else told


def _at(found: Findings, budget: Budget) -> str:
    best = budget.best
    at = f"At {numbers.percent(budget.share)} of the visual tokens"
    if len(budget.runs) == 1:
        return f"{at} {budget.name(best)} has {_result(found, best)}."
    second = budget.runs[1]
    ahead, next_best = budget.ahead.get(second), f"the next, {budget.name(second)}"
    told = f"{at} {budget.name(best)} is best with {_result(found, best)}"
    return (
        f"{told}. Ahead of {next_best}, by {numbers.points(ahead)}: {_noise(ahead)}."
        if ahead
        else f"{told}, before {next_best}."
    )


def _result(found: Findings, run: Run) -> str:
    """Returns a run's score and how it differs from the baseline's."""
    assert found.differences and found.questions
    score = f"{numbers.percent(found.differences.score[run])} {found.questions.label}"
    if run is found.baseline:
        return f"{score}, the baseline"
    margin = found.differences.margin.get(run)
    if margin is None:
        return score
    return f"{score}, {numbers.points(margin)} points against {found.baseline.label}: {_noise(margin)}"


def _noise(margin: Margin) -> str:
    return "more than noise" if margin.is_clear else "may be noise"


def _unpaired(found: Findings) -> str:
    """Returns what can be said without scores by question."""
    if found.worth is None:
        return "These runs have no score to compare."
    best = max(found.runs, key=found.worth_of)
    column = found.columns[found.worth]
    value = numbers.shown(best.metrics[found.worth], column)
    told = f"The highest {column.label} is that of {best.label}: {value}."
    why = f" ({found.unpaired})" if found.unpaired else ""
    return f"{told} The runs are not paired by question{why}, so no difference is told from noise."
