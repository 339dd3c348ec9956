"""What a search's ledger holds: an Optuna study, read without the parts that wrote it."""

from __future__ import annotations

import json
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from prune2drive.errors import InputError
from prune2drive.search.trials import DIGITS, Point

NOTES = "study.json"
FEWEST = 20  # trials that say something about importance
BEST_SHARE, BEST_COUNT = 0.1, 5  # which trials the importance explains: the best tenth, or at least this many


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
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # takes seconds

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
