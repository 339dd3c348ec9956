"""Reads a search's Optuna study, finished or not; `optuna-dashboard <storage>` shows the same."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from prune2drive.errors import InputError
from prune2drive.search.storage import Location, open_storage, shown, storage_errors
from prune2drive.search.trials import DIGITS, Trial, best, ranked

FEWEST = 20  # successful trials below which importance says nothing
BEST_SHARE, BEST_COUNT = 0.1, 5  # importance explains the best tenth of the trials, or this many if they are more
UNSET = "not set"


class Study:
    """Gives the trials of a search and what is known about it.

    Args:
        optuna_study: a study that `ActiveStudy` wrote.
    """

    def __init__(self, optuna_study: optuna.Study) -> None:
        self.optuna_study = optuna_study

    @classmethod
    def open(cls, folder: Path) -> Study:
        """Opens the study of a sweep's folder, also while its search is running.

        Raises:
            InputError: the folder holds no search, or its study cannot be read.
        """
        name, storage = Location.read(folder)
        with storage_errors(f"{folder}: study {name} cannot be read from {shown(storage)}"):
            return cls(optuna.load_study(study_name=name, storage=open_storage(storage, create=False)))

    @property
    def name(self) -> str:
        """Returns the study's name in its storage."""
        return self.optuna_study.study_name

    @property
    def about(self) -> dict[str, Any]:
        """Returns the search's parts by name, its planned number of trials, and the sizes of its splits."""
        return self.optuna_study.user_attrs.get("about", {})

    @property
    def identity(self) -> dict[str, Any]:
        """Returns what makes the trials comparable, space and objective included."""
        return self.optuna_study.user_attrs.get("identity", {})

    @property
    def verdict(self) -> dict[str, Any]:
        """Returns the results on the validation and test splits; empty before there are any."""
        return self.optuna_study.user_attrs.get("verdict", {})

    @property
    def trials(self) -> list[Trial]:
        """Returns the evaluated trials, failed ones included, in the order in which they ended.

        Repeated and interrupted trials are no evaluations.
        """
        return [_trial(trial) for trial in self._evaluated()]

    def best(self, count: int) -> list[Trial]:
        """Returns the trials with the highest objectives, at most `count`, the best first."""
        return ranked(self.trials)[:count]

    @property
    def winner(self) -> Trial | None:
        """Returns the trial that won on the validation split, or before that the best one; None if all failed."""
        trials = self.trials
        return next((trial for trial in trials if trial.number == self.verdict.get("winner")), best(trials))

    @property
    def explained(self) -> str:
        """Returns what the importance explains: the objective, or the reward where two objectives are optimised."""
        return "objective" if len(self.optuna_study.directions) == 1 else "reward"

    def importance(self) -> dict[str, float]:
        """Returns how far each variable decides whether a trial is among the best, the largest share first.

        The estimate is PED-ANOVA (Watanabe et al., IJCAI 2023); the shares sum to 1. The result is empty for too few
        trials, or if all are worth the same.
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # takes seconds

        done = [trial for trial in self._evaluated() if trial.state == TrialState.COMPLETE]
        worth = [trial.user_attrs[self.explained] for trial in done]
        if len(done) < FEWEST or len({round(value, DIGITS) for value in worth}) == 1:
            return {}
        scalar = optuna.create_study(direction="maximize")
        scalar.add_trials(
            [
                create_trial(params=trial.params, distributions=trial.distributions, value=value)
                for trial, value in zip(done, worth, strict=True)
            ]
        )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(BEST_SHARE, BEST_COUNT / len(done)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about ties, where all variables matter equally
            return get_param_importances(scalar, evaluator=evaluator)

    def _evaluated(self) -> list[FrozenTrial]:
        done = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        kept = [trial for trial in done if "left_out" not in trial.user_attrs]
        return sorted(kept, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete, trial.number))


def _trial(trial: FrozenTrial) -> Trial:
    attrs = trial.user_attrs
    error = "" if trial.state == TrialState.COMPLETE else attrs.get("error", "the run did not finish")
    return Trial(trial.number, attrs.get("ratios", {}), attrs.get("reward"), attrs.get("objective"), error)


def check_identity(study: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to mix the trials of two searches.

    A class is compared by its name alone, so that a search survives a move of the class to another module.

    Args:
        study: the study's name.
        before: what the study's trials have in common, as its storage returns it.
        now: the same of the search that is to use the study.

    Raises:
        InputError: the first option that differs.
    """
    for option, was, is_now in _differences(before, now):
        version = "; an earlier version of prune2drive may have begun it" if UNSET in (was, is_now) else ""
        raise InputError(
            f"study {study}: its trials are of another search: {option} was {was}, now {is_now}{version}; "
            "choose another search.study"
        )


def _differences(was: Any, now: Any, option: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the options that differ, with both values."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in {**was, **now}:
            yield from _differences(was.get(key, UNSET), now.get(key, UNSET), f"{option}.{key}".strip("."))
    elif option.endswith("_target_") and str(was).split(".")[-1] == str(now).split(".")[-1]:
        return
    elif was != now:
        yield option, was, now
