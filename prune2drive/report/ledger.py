"""What a search's ledger holds: an Optuna study, read without the parts that wrote it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from prune2drive.errors import InputError

NOTES = "study.json"
DIGITS = 6  # to which totals and objectives are told apart
FEWEST = 20  # trials that say something about importance
BEST_SHARE, BEST_COUNT = 0.1, 5  # which trials the importance explains: the best tenth, or at least this many


@dataclass(frozen=True)
class Point:
    """A trial that was evaluated.

    Args:
        reward: R; None for a failed trial.
        objective: R - lambda * P.
        error: of a failed trial.
    """

    number: int
    ratios: dict[str, float]
    reward: float | None = None
    objective: float | None = None
    error: str = ""

    @property
    def total(self) -> float:
        """P, the sum of the ratios."""
        return sum(self.ratios.values())

    @property
    def mean(self) -> float:
        return self.total / max(1, len(self.ratios))


class Ledger:
    """A search as it stands, finished or not.

    Args:
        study: what `prune2drive.search.study` keeps: trials with their ratios, reward and objective, or error.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study

    @property
    def name(self) -> str:
        return self.study.study_name

    @property
    def about(self) -> dict[str, Any]:
        """The search's parts by name, how many trials it is to have, and the size of its splits."""
        return self.study.user_attrs.get("about", {})

    @property
    def identity(self) -> dict[str, Any]:
        """What makes its trials comparable, space and objective included."""
        return self.study.user_attrs.get("identity", {})

    @property
    def verdict(self) -> dict[str, Any]:
        """What validation and test said; empty before."""
        return self.study.user_attrs.get("verdict", {})

    @property
    def points(self) -> list[Point]:
        """Evaluated trials in the order in which they ended, those left out that were known already or given up."""
        return [_point(trial) for trial in self._trials()]

    def _trials(self) -> list[FrozenTrial]:
        done = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        kept = [trial for trial in done if "left_out" not in trial.user_attrs]
        return sorted(kept, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete, trial.number))

    @cached_property
    def explains(self) -> str:
        """What the importance is of: a study of two objectives has the reward for it."""
        return "objective" if len(self.study.directions) == 1 else "reward"

    def importance(self) -> dict[str, float]:
        """How far each variable decides whether a trial is among the best (PED-ANOVA), the largest first.

        Empty where that cannot be told: too few trials, or all of them worth the same.
        """
        done = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        worth = [trial.user_attrs[self.explains] for trial in done]
        if len(done) < FEWEST or len({round(each, DIGITS) for each in worth}) == 1:
            return {}
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        plain = optuna.create_study(direction="maximize")
        optuna.logging.set_verbosity(verbosity)
        plain.add_trials(
            [
                create_trial(params=trial.params, distributions=trial.distributions, value=value)
                for trial, value in zip(done, worth, strict=True)
            ]
        )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(BEST_SHARE, BEST_COUNT / len(done)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ties, where all variables matter alike
            return get_param_importances(plain, evaluator=evaluator)


def best(points: Sequence[Point]) -> Point | None:
    """The trial with the highest objective, the earliest among equals; None where all failed."""
    done = [point for point in points if point.objective is not None]
    return min(done, key=lambda point: (-round(point.objective or 0.0, DIGITS), point.number), default=None)


def best_so_far(points: Sequence[Point]) -> list[float | None]:
    """The highest objective after each trial; None before the first that succeeded."""
    highest: list[float | None] = []
    for point in points:
        known = [value for value in (*highest[-1:], point.objective) if value is not None]
        highest.append(max(known, default=None))
    return highest


def pareto(points: Sequence[Point]) -> list[Point]:
    """Trials than which no other has a higher reward for no larger total, by total."""
    done = [point for point in points if point.reward is not None]
    front: list[Point] = []
    for point in sorted(done, key=lambda each: (round(each.total, DIGITS), -(each.reward or 0.0), each.number)):
        if not front or (point.reward or 0.0) > (front[-1].reward or 0.0):
            front.append(point)
    return front


def has_one_total(points: Sequence[Point]) -> bool:
    """Whether all trials keep the same share, which leaves no front."""
    return len({round(point.total, DIGITS) for point in points}) <= 1


def open_ledger(folder: Path) -> Ledger:
    """The ledger of a sweep's folder, of a search that is still going on too.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    try:
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        name, storage = notes["study"], notes["storage"] or f"sqlite:///{folder.resolve()}/study.db"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: holds no search ({NOTES}: {error}); name the folder of a -m search=") from error
    try:
        return Ledger(optuna.load_study(study_name=name, storage=_opened(storage)))
    except (SQLAlchemyError, StorageInternalError, ImportError, OSError, RuntimeError, KeyError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise InputError(f"{folder}: study {name} cannot be read from {storage} ({reason})") from error


def _opened(storage: str) -> str | BaseStorage:
    """What Optuna takes for a storage.

    Raises:
        FileNotFoundError: a file that is not there, which Optuna would make.
    """
    is_url = "://" in storage
    file = storage.partition(":///")[2] if storage.startswith("sqlite") else "" if is_url else storage
    if file and not Path(file).is_file():
        raise FileNotFoundError(f"no such file: {file}")
    if is_url:
        return storage
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return JournalStorage(JournalFileBackend(storage))


def _point(trial: FrozenTrial) -> Point:
    said = trial.user_attrs
    error = "" if trial.state == TrialState.COMPLETE else said.get("error", "the run did not finish")
    return Point(trial.number, said.get("ratios", {}), said.get("reward"), said.get("objective"), error)
