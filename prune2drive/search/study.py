"""The ledger of a search: every trial is asked of it and told to it, and a kill at any moment loses none that finished.

It is an Optuna study whichever engine proposes, so `optuna-dashboard <storage>` opens it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from prune2drive.errors import InputError
from prune2drive.search.objective import Objective
from prune2drive.search.samplers import Exhausted, SamplerChoice, distributions
from prune2drive.search.space import Space
from prune2drive.search.storage import is_dead, open_storage, storage_errors, this_worker

log = logging.getLogger(__name__)

SAME_ERRORS = 3  # in a row end a search
MOST_REPEATS = 100  # proposals in a row that are known already, before there is nothing left
DIGITS = 6  # to which ratios and objectives are told apart


@dataclass(frozen=True)
class Trial:
    """A set of ratios to evaluate, or evaluated.

    Args:
        number: in the study.
        reward: R, once it is known.
        objective: what is maximised: R - lambda * P.
    """

    number: int
    ratios: dict[str, float]
    reward: float | None = None
    objective: float | None = None


class Study:
    """Ratios to try, and what became of those that were tried.

    Args:
        storage: a database's URL or a journal file's path.
        name: of the study in it; one that is there is gone on with.
        identity: what has to be the same for its trials to be comparable, beside space and objective.
        trials: how many to evaluate, over all processes; failed ones count.
        seed: of the proposals.
        found: a trial's metrics, where its run finished though its process did not live to tell.

    Raises:
        InputError: a storage that cannot be used, or the study of another search.
    """

    def __init__(
        self,
        storage: str,
        name: str,
        engine: SamplerChoice,
        space: Space,
        objective: Objective,
        identity: Mapping[str, Any],
        trials: int,
        seed: int = 0,
        found: Callable[[int], Mapping[str, float] | None] = lambda number: None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.storage, self.space, self.objective, self.target = storage, space, objective, trials
        self.directions = engine.directions
        self.distributions = distributions(space)
        self.worker = f"worker:{this_worker()}"
        self.errors: list[str] = []
        opened = open_storage(storage)
        with storage_errors(storage):
            self.ledger = optuna.create_study(
                storage=opened, study_name=name, directions=self.directions, load_if_exists=True
            )
            self._check({**identity, **space.describe(), **objective.describe(), "directions": [*self.directions]})
            self.ledger.set_user_attr(self.worker, True)
        self._take_over(found)
        before = self.ledger.get_trials(deepcopy=False)
        workers = sum(key.startswith("worker:") for key in self.ledger.user_attrs)
        fresh = int(np.random.SeedSequence([seed, len(before), workers]).generate_state(1)[0] >> 1)
        self.ledger.sampler = engine.make(space, before, seed, fresh)

    def close(self) -> None:
        """Says that what this process leaves is not being worked on."""
        self.ledger.set_user_attr(self.worker, False)

    @property
    def finished(self) -> list[FrozenTrial]:
        """Evaluated trials, failed ones included; not those that were only known already, or given up."""
        done = self.ledger.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        return [trial for trial in done if "left_out" not in trial.user_attrs]

    @property
    def left(self) -> int:
        """Trials to go."""
        running = self.ledger.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return self.target - len(self.finished) - len(running)

    def ask(self, count: int) -> list[Trial]:
        """Up to `count` ratios that nobody has tried; none when all trials are done or nothing is left to try."""
        asked: list[Trial] = []
        for _ in range(min(count, self.left)):
            trial = self._new()
            if trial is None:
                break
            asked.append(trial)
        return asked

    def tell(self, trial: Trial, metrics: Mapping[str, float]) -> Trial:
        """Records a finished run; one without the objective's metrics has failed.

        Returns:
            the trial with what it is worth, if that is known.
        """
        try:
            reward = self.objective.reward(metrics)
        except InputError as error:
            self.fail(trial, str(error))
            return trial
        value = self.objective.value(reward, trial.ratios)
        self._note(trial.number, reward=reward, objective=value, ratios=trial.ratios)
        values = [value] if len(self.directions) == 1 else [reward, sum(trial.ratios.values())]
        self.ledger.tell(trial.number, values)
        self.errors.clear()
        return Trial(trial.number, trial.ratios, reward, value)

    def fail(self, trial: Trial, error: str) -> None:
        """Records a run that gave no result."""
        self._note(trial.number, error=error, ratios=trial.ratios)
        self.ledger.tell(trial.number, state=TrialState.FAIL)
        self.errors.append(error)

    def give_up(self, trial: Trial) -> None:
        """Records a run that was interrupted, and asks for its ratios again when the search goes on."""
        self._give_up(self._frozen(trial.number))

    def check_errors(self) -> None:
        """Ends a search that gets nowhere.

        Raises:
            InputError: the last trials failed, all for the same reason.
        """
        last = self.errors[-SAME_ERRORS:]
        if len(last) == SAME_ERRORS and len(set(last)) == 1:
            raise InputError(f"{SAME_ERRORS} trials in a row failed: {last[0]}")

    def best(self, count: int) -> list[Trial]:
        """The distinct trials with the highest objective, best first; among equals the earliest."""
        done = [_told(trial) for trial in self.finished if trial.state == TrialState.COMPLETE]
        return sorted(done, key=lambda trial: (-round(trial.objective or 0.0, DIGITS), trial.number))[:count]

    def _check(self, identity: Mapping[str, Any]) -> None:
        identity = json.loads(json.dumps(identity, default=str))  # as the storage gives it back
        before = self.ledger.user_attrs.get("identity")
        if before is None:
            self.ledger.set_user_attr("identity", identity)
            return
        for key in {**before, **identity}:
            was, now = before.get(key), identity.get(key)
            if was != now:
                raise InputError(
                    f"study {self.ledger.study_name}: its trials are of another search: {key} was {was}, now {now}; "
                    "choose another search.study"
                )

    def _take_over(self, found: Callable[[int], Mapping[str, float] | None]) -> None:
        """Settles trials that dead processes left running."""
        attrs = self.ledger.user_attrs
        dead = {key for key, alive in attrs.items() if key.startswith("worker:") and (not alive or self._is_dead(key))}
        others = {key for key in attrs if key.startswith("worker:")} - dead - {self.worker}
        for trial in self.ledger.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            worker = trial.user_attrs.get("worker")
            if worker in dead or (worker is None and not others):
                metrics = found(trial.number) if self.distributions.keys() <= trial.params.keys() else None
                if metrics is not None:
                    self.tell(Trial(trial.number, self.space.ratios(trial.params)), metrics)
                else:
                    self._give_up(trial)

    @staticmethod
    def _is_dead(key: str) -> bool:
        return is_dead(key.removeprefix("worker:"))

    def _give_up(self, trial: FrozenTrial) -> None:
        if self.distributions.keys() <= trial.params.keys():
            self.ledger.enqueue_trial(trial.params)
        self._note(trial.number, left_out="interrupted; its ratios are tried again")
        self.ledger.tell(trial.number, state=TrialState.FAIL)

    def _new(self) -> Trial | None:
        for _ in range(MOST_REPEATS):
            try:
                asked = self.ledger.ask(self.distributions)
            except Exhausted as end:
                self._leave_out(end.number, "nothing left to propose")
                return None
            asked.set_user_attr("worker", self.worker)
            trial = Trial(asked.number, self.space.ratios(asked.params))
            same = self._same(trial)
            if same is None:
                return trial
            if same.state == TrialState.COMPLETE:
                self._note(trial.number, left_out=f"the same as trial {same.number}")
                self.ledger.tell(trial.number, same.values)
            else:
                self._leave_out(trial.number, f"the same as trial {same.number}")
        log.warning("the search proposes only what it has tried: it ends early")
        return None

    def _same(self, trial: Trial) -> FrozenTrial | None:
        """An earlier trial of the same ratios that is running or has a result."""
        key = _key(trial.ratios)
        for earlier in self.ledger.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE)):
            whole = self.distributions.keys() <= earlier.params.keys()
            if earlier.number < trial.number and whole and _key(self.space.ratios(earlier.params)) == key:
                return earlier
        return None

    def _leave_out(self, number: int, why: str) -> None:
        self._note(number, left_out=why)
        self.ledger.tell(number, state=TrialState.FAIL)

    def _frozen(self, number: int) -> FrozenTrial:
        return next(trial for trial in self.ledger.get_trials(deepcopy=False) if trial.number == number)

    def _note(self, number: int, **notes: Any) -> None:
        trial = self._frozen(number)
        for name, value in notes.items():
            self.ledger._storage.set_trial_user_attr(trial._trial_id, name, value)


def _key(ratios: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(round(ratio, DIGITS) for ratio in ratios.values())


def _told(trial: FrozenTrial) -> Trial:
    attrs = trial.user_attrs
    return Trial(trial.number, attrs["ratios"], attrs["reward"], attrs["objective"])
