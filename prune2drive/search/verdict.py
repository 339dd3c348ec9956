"""Whether searched ratios are worth it: finalists on the validation split, the winner on the test split beside others.

Its rivals share the winner's total. Differences are paired, question by question, with bootstrap intervals over frames.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from prune2drive.errors import InputError
from prune2drive.files import write_atomically
from prune2drive.metrics.statistics import Interval, difference
from prune2drive.results.provenance import git_state
from prune2drive.results.run_folder import RunFolder
from prune2drive.search.baselines import baselines
from prune2drive.search.ledger import Ledger
from prune2drive.search.plan import Plan, kept_tokens
from prune2drive.search.runner import Job, RunLauncher
from prune2drive.search.study import Study, Trial
from prune2drive.search.trials import Point, pareto

ADAPTIVE = Path("configs/ratios/adaptive")
REPORT = "search.md"
WINNER = "winner.yaml"


@dataclass(frozen=True)
class TestResult:
    """An allocation on the test split.

    Args:
        reward: R, the mean over its draws.
        margin: by how much the winner's questions score higher; None for the winner.
    """

    name: str
    reward: float
    margin: Interval | None = None


@dataclass(frozen=True)
class Verdict:
    """What came of a search.

    Args:
        validated: finalists with their objective on the validation split, best first.
        tested: the winner, then its rivals.
    """

    validated: list[tuple[Trial, float]]
    tested: list[TestResult]

    @property
    def winner(self) -> Trial:
        return self.validated[0][0]

    @property
    def sentence(self) -> str:
        """Whether searching paid, in plain words."""
        margin = next(each.margin for each in self.tested if each.name == "uniform")
        assert margin is not None
        gap = f"{_interval(margin)} on {margin.n} test questions"
        if margin.low > 0:
            return f"The searched ratios beat uniform ones of the same total: {gap}."
        worse = "are worse than" if margin.high < 0 else "do not beat"
        return f"The searched ratios {worse} uniform ones of the same total: {gap}. Use ratios=uniform."


def evaluate_finalists(plan: Plan, study: Study, jobs: RunLauncher) -> Path:
    """Chooses the winner, tests it, and writes it with its report.

    Returns:
        the report.

    Raises:
        InputError: no trial succeeded, or a run of the last two stages failed.
    """
    finalists = study.best(plan.settings.finalists)
    if not finalists:
        raise InputError(
            f"{jobs.folder}: no trial succeeded, so there is no winner; error.txt in their folders says why"
        )
    validated = _validate(plan, finalists, jobs)
    verdict = Verdict(validated, _test(plan, validated[0][0], jobs))
    study.ledger.set_user_attr("verdict", _noted(study, verdict))
    winner = OmegaConf.to_yaml(OmegaConf.create(_winner(plan, study, verdict)))
    write_atomically(jobs.folder / WINNER, [winner])
    write_atomically(jobs.folder / REPORT, [line + "\n" for line in _report(plan, study, verdict)])
    use = f"ratios=adaptive ratios.file={jobs.folder / WINNER}"
    if plan.settings.write:
        file = ADAPTIVE / f"{plan.names['model']}_{plan.names['dataset']}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, [winner])
        use = f"ratios=adaptive reads {file}"
    print(verdict.sentence, f"winner: trial {verdict.winner.number}; {use}", sep="\n")
    print(f"report: {jobs.folder / REPORT}", flush=True)
    return jobs.folder / REPORT


def _validate(plan: Plan, finalists: Sequence[Trial], jobs: RunLauncher) -> list[tuple[Trial, float]]:
    named = {str(trial.number): trial for trial in finalists}
    rewards = _rewards(plan, "val", {name: trial.ratios for name, trial in named.items()}, jobs)
    values = [(trial, plan.objective.value(rewards[name], trial.ratios)) for name, trial in named.items()]
    return sorted(values, key=lambda each: -each[1])


def _test(plan: Plan, winner: Trial, jobs: RunLauncher) -> list[TestResult]:
    settings = plan.settings
    total = kept_tokens(winner.ratios, plan.tokens, plan.rounding)
    rivals = baselines(plan.tokens, total, settings.low, settings.random_draws, settings.seed)
    groups = {"searched": [winner.ratios], **rivals}
    named = {f"{name}_{draw}": ratios for name, draws in groups.items() for draw, ratios in enumerate(draws)}
    rewards = _rewards(plan, "test", named, jobs)
    scores: dict[str, dict[Hashable, float]] = {}
    frames: dict[Hashable, Hashable] = {}
    for name, draws in groups.items():
        scores[name] = defaultdict(float)
        for draw in range(len(draws)):
            rows = list(RunFolder(jobs.folder / _job(plan, "test", f"{name}_{draw}", draws[draw]).folder).rows())
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


def _rewards(plan: Plan, split: str, named: Mapping[str, Mapping[str, float]], jobs: RunLauncher) -> dict[str, float]:
    """R of each of these ratios on a split.

    Raises:
        InputError: one of the runs failed.
    """
    print(f"{split} split: {len(named)} runs", flush=True)
    results = jobs.run([_job(plan, split, name, ratios) for name, ratios in named.items()])
    rewards = {}
    for name, result in zip(named, results, strict=True):
        if result.metrics is None:
            raise InputError(f"{split} run {name} failed: {result.error}; search.resume={jobs.folder} goes on")
        rewards[name] = plan.objective.reward(result.metrics)
    return rewards


def _job(plan: Plan, split: str, name: str, ratios: Mapping[str, float]) -> Job:
    """Its folder has another name as soon as anything about it differs, so a finished one can be taken as it is."""
    digest = hashlib.sha256(repr((plan.splits[split], sorted(ratios.items()))).encode()).hexdigest()[:8]
    return Job(f"{split}/{name}-{digest}", plan.splits[split], ratios)


def _winner(plan: Plan, study: Study, verdict: Verdict) -> dict[str, Any]:
    """What ratios=adaptive reads."""
    winner = verdict.winner
    margin = {each.name: each.margin for each in verdict.tested if each.margin}
    minus = {name: [each.value, each.low, each.high] for name, each in margin.items()}
    return {
        "ratios": dict(winner.ratios),
        "provenance": {
            **plan.names,
            "study": study.ledger.study_name,
            "engine": plan.sampler.name,
            "sampler": plan.sampler.sampler,
            "trials": len(study.finished),
            "trial": winner.number,
            **plan.space.describe(),
            **plan.objective.describe(),
            "splits": plan.questions,
            "objective_search": winner.objective,
            "objective_val": verdict.validated[0][1],
            "test": {each.name: each.reward for each in verdict.tested},
            "test_searched_minus": minus,
            "commit": git_state()["commit"],
        },
    }


def _noted(study: Study, verdict: Verdict) -> dict[str, Any]:
    """What the ledger keeps of it."""
    tested = [
        {"name": name, "reward": reward, "ahead": margin and [margin.value, margin.low, margin.high]}
        for name, reward, margin in ((each.name, each.reward, each.margin) for each in verdict.tested)
    ]
    return {
        "sentence": verdict.sentence,
        "trials": len(study.finished),
        "winner": verdict.winner.number,
        "validated": [{"trial": trial.number, "objective": value} for trial, value in verdict.validated],
        "tested": tested,
    }


def _report(plan: Plan, study: Study, verdict: Verdict) -> list[str]:
    """The search in Markdown."""
    cameras = plan.space.cameras
    engine = f"{plan.sampler.name} {plan.sampler.sampler}"
    lines = [f"# Keep ratios of {plan.names['model']} on {plan.names['dataset']}", "", verdict.sentence, ""]
    lines += [
        f"{len(study.finished)} trials by {engine}, space {plan.settings.space}; study {study.ledger.study_name}",
        "",
    ]
    lines += ["## The winner", "", *_table(["camera", "keep ratio"], verdict.winner.ratios.items())]
    asked = plan.questions["test"]["size"]
    lines += [f"## On the test split ({asked} questions)", ""]
    rows = [[each.name, each.reward, _interval(each.margin) if each.margin else ""] for each in verdict.tested]
    lines += _table(["ratios", "R", "searched minus these, scored by question"], rows)
    lines += [f"## Finalists on the validation split ({plan.questions['val']['size']} questions)", ""]
    header = ["trial", *cameras, "R, search", "objective, search", "objective, val"]
    lines += _table(header, [[*_row(trial, cameras), value] for trial, value in verdict.validated])
    lines += ["## Trials that no other beats at a smaller total", ""]
    front = pareto(Ledger(study.ledger).points)
    lines += _table(header[:-1], [_row(trial, cameras) for trial in front])
    return lines


def _row(trial: Trial | Point, cameras: Sequence[str]) -> list[Any]:
    return [str(trial.number), *(trial.ratios[camera] for camera in cameras), trial.reward, trial.objective]


def _table(header: Sequence[str], rows: Any) -> list[str]:
    cells = [[f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *cells)] + [""]


def _interval(margin: Interval) -> str:
    return f"{margin.value:+.4f} [{margin.low:+.4f}, {margin.high:+.4f}]"
