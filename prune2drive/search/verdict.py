"""Tests whether a search paid: finalists on the validation split, then the winner and its rivals on the test split.

The rivals keep as many tokens in all as the winner. Scores are compared question by question, with bootstrap intervals
over frames.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.metrics.intervals import Interval, difference
from prune2drive.pruning.ratios import SEARCHED_RATIOS
from prune2drive.report.markdown import markdown_table
from prune2drive.results.provenance import git_state
from prune2drive.results.run_folder import RunFolder
from prune2drive.search.active_study import ActiveStudy
from prune2drive.search.baselines import baselines
from prune2drive.search.plan import Plan, kept_tokens
from prune2drive.search.runner import Job, RunLauncher
from prune2drive.search.trials import Trial, pareto

REPORT = "search.md"
WINNER = "winner.yaml"


@dataclass(frozen=True)
class TestResult:
    """Holds the result of an allocation on the test split.

    Args:
        name: `searched` or a rival's name.
        reward: R, the mean over the draws of a random allocation.
        margin: the winner's score per question minus this allocation's; None for the winner itself.
    """

    name: str
    reward: float
    margin: Interval | None = None


@dataclass(frozen=True)
class Verdict:
    """Holds the result of a search.

    Args:
        validated: finalists with their objectives on the validation split, the best first.
        tested: results on the test split: the winner's, then those of its rivals.
    """

    validated: list[tuple[Trial, float]]
    tested: list[TestResult]

    @property
    def winner(self) -> Trial:
        """Returns the best finalist."""
        return self.validated[0][0]

    @property
    def sentence(self) -> str:
        """Says whether the search paid."""
        margin = next(result.margin for result in self.tested if result.name == "uniform")
        assert margin is not None
        gap = f"{margin:+.4f} on {margin.n} test questions"
        if margin.low > 0:
            return f"The searched ratios beat uniform ones of the same total: {gap}."
        worse = "are worse than" if margin.high < 0 else "do not beat"
        return f"The searched ratios {worse} uniform ones of the same total: {gap}. Use ratios=uniform."


def evaluate_finalists(plan: Plan, study: ActiveStudy, launcher: RunLauncher) -> Path:
    """Chooses the winner, tests it, and writes `winner.yaml` and the report.

    Returns:
        The path of the Markdown report.

    Raises:
        InputError: no trial succeeded, or a run on the validation or test split failed.
    """
    folder = launcher.folder
    finalists = study.best(plan.settings.finalists)
    if not finalists:
        raise InputError(f"{folder}: no trial succeeded, so there is no winner; error.txt in their folders says why")
    validated = _validate(plan, finalists, launcher)
    verdict = Verdict(validated, _test(plan, validated[0][0], launcher))
    study.optuna_study.set_user_attr("verdict", _record(study, verdict))
    winner = OmegaConf.to_yaml(OmegaConf.create(_winner(plan, study, verdict)))
    write_atomically(folder / WINNER, [winner])
    write_atomically(folder / REPORT, [line + "\n" for line in _report(plan, study, verdict)])
    use = f"ratios=adaptive ratios.file={folder / WINNER}"
    if plan.settings.write:
        file = SEARCHED_RATIOS[0] / f"{plan.names['model']}_{plan.names['dataset']}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, [winner])
        use = f"ratios=adaptive reads {file}"
    print(verdict.sentence, f"winner: trial {verdict.winner.number}; {use}", sep="\n")
    print(f"report: {folder / REPORT}", flush=True)
    return folder / REPORT


def _validate(plan: Plan, finalists: Sequence[Trial], launcher: RunLauncher) -> list[tuple[Trial, float]]:
    """Returns the finalists with their objectives on the validation split, the best first."""
    rewards = _rewards(plan, "val", {str(trial.number): trial.ratios for trial in finalists}, launcher)
    values = [(trial, plan.objective.value(rewards[str(trial.number)], trial.ratios)) for trial in finalists]
    return sorted(values, key=lambda pair: -pair[1])


def _test(plan: Plan, winner: Trial, launcher: RunLauncher) -> list[TestResult]:
    """Runs the winner and its rivals on the test split."""
    settings = plan.settings
    total = kept_tokens(winner.ratios, plan.tokens, plan.rounding)
    rivals = baselines(plan.tokens, total, settings.low, settings.random_draws, settings.seed)
    groups = {"searched": [winner.ratios], **rivals}
    named = {f"{name}_{draw}": ratios for name, draws in groups.items() for draw, ratios in enumerate(draws)}
    rewards = _rewards(plan, "test", named, launcher)
    scores: dict[str, dict[Hashable, float]] = {}
    frames: dict[Hashable, Hashable] = {}
    for name, draws in groups.items():
        scores[name] = defaultdict(float)
        for draw, ratios in enumerate(draws):
            rows = list(RunFolder(launcher.folder / _job(plan, "test", f"{name}_{draw}", ratios).folder).rows())
            frames |= {row.id: f"{row.scene} {row.frame}" for row in rows}
            for question, score in plan.metric.by_question(rows).items():
                scores[name][question] += score / len(draws)
    if not scores["searched"]:
        raise InputError(
            "search.splits.test: none of its questions can be scored by itself, so nothing can be compared"
        )
    tested = []
    for name, draws in groups.items():
        margin = None if name == "searched" else difference(scores["searched"], scores[name], frames)
        tested.append(TestResult(name, fmean(rewards[f"{name}_{draw}"] for draw in range(len(draws))), margin))
    return tested


def _rewards(
    plan: Plan, split: str, named: Mapping[str, Mapping[str, float]], launcher: RunLauncher
) -> dict[str, float]:
    """Returns R of each named set of ratios on a split.

    Raises:
        InputError: one of the runs failed.
    """
    print(f"{split} split: {len(named)} runs", flush=True)
    results = launcher.run([_job(plan, split, name, ratios) for name, ratios in named.items()])
    rewards = {}
    for name, result in zip(named, results, strict=True):
        if result.metrics is None:
            raise InputError(f"{split} run {name} failed: {result.error}; search.resume={launcher.folder} goes on")
        rewards[name] = plan.objective.reward(result.metrics)
    return rewards


def _job(plan: Plan, split: str, name: str, ratios: Mapping[str, float]) -> Job:
    """Returns a run whose folder's name depends on its split and ratios, so that a finished one can be reused."""
    digest = hashlib.sha256(repr((plan.splits[split], sorted(ratios.items()))).encode()).hexdigest()[:8]
    return Job(f"{split}/{name}-{digest}", plan.splits[split], ratios)


def _winner(plan: Plan, study: ActiveStudy, verdict: Verdict) -> dict[str, Any]:
    """Returns what `ratios=adaptive` reads: the winner's ratios and their provenance."""
    winner = verdict.winner
    return {
        "ratios": dict(winner.ratios),
        "provenance": {
            **plan.names,
            "study": study.name,
            "engine": plan.sampler.engine,
            "sampler": plan.sampler.name,
            "trials": len(study.trials),
            "trial": winner.number,
            **plan.space.describe(),
            **plan.objective.describe(),
            "splits": plan.questions,
            "objective_search": winner.objective,
            "objective_val": verdict.validated[0][1],
            "test": {result.name: result.reward for result in verdict.tested},
            "test_searched_minus": {
                result.name: _ends(result.margin) for result in verdict.tested if result.margin is not None
            },
            "commit": git_state()["commit"],
        },
    }


def _record(study: ActiveStudy, verdict: Verdict) -> dict[str, Any]:
    """Returns what the study keeps about the verdict."""
    return {
        "sentence": verdict.sentence,
        "trials": len(study.trials),
        "winner": verdict.winner.number,
        "validated": [{"trial": trial.number, "objective": value} for trial, value in verdict.validated],
        "tested": [
            {"name": result.name, "reward": result.reward, "ahead": result.margin and _ends(result.margin)}
            for result in verdict.tested
        ],
    }


def _report(plan: Plan, study: ActiveStudy, verdict: Verdict) -> list[str]:
    """Returns the lines of the Markdown report."""
    cameras, sizes = plan.space.cameras, {name: questions["size"] for name, questions in plan.questions.items()}
    sampler = f"{plan.sampler.engine} {plan.sampler.name}"
    header = ["trial", *cameras, "R, search", "objective, search", "objective, val"]

    def row(trial: Trial, *more: float) -> list[Any]:
        return [trial.number, *(trial.ratios[camera] for camera in cameras), trial.reward, trial.objective, *more]

    tested = [[result.name, result.reward, result.margin and f"{result.margin:+.4f}"] for result in verdict.tested]
    return [
        f"# Keep ratios of {plan.names['model']} on {plan.names['dataset']}",
        "",
        verdict.sentence,
        "",
        f"{len(study.trials)} trials by {sampler}, space {plan.settings.space}; study {study.name}",
        "",
        *_section("The winner", ["camera", "keep ratio"], verdict.winner.ratios.items()),
        *_section(
            f"On the test split ({sizes['test']} questions)",
            ["ratios", "R", "searched minus these, scored by question"],
            tested,
        ),
        *_section(
            f"Finalists on the validation split ({sizes['val']} questions)",
            header,
            [row(trial, value) for trial, value in verdict.validated],
        ),
        *_section("Trials that no other beats at a smaller total", header[:-1], map(row, pareto(study.trials))),
    ]


def _section(heading: str, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    return [f"## {heading}", "", *markdown_table(header, [[_cell(value) for value in row] for row in rows]), ""]


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _ends(margin: Interval) -> list[float]:
    return [margin.value, margin.low, margin.high]
