"""Asks a sampler for ratios and records what became of them; a kill at any moment loses no finished run.

Any number of processes and machines may take part in one study.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from prune2drive.errors import InputError
from prune2drive.search.objective import Objective
from prune2drive.search.samplers import Exhausted, SamplerChoice, distributions
from prune2drive.search.space import Space
from prune2drive.search.storage import Location, is_dead, open_storage, shown, storage_errors, this_worker
from prune2drive.search.study import Study, check_identity
from prune2drive.search.trials import DIGITS, Trial

log = logging.getLogger(__name__)

OTHER_STORAGE = "choose another; PostgreSQL needs pip install 'prune2drive[database]'"
SAME_ERRORS = 3  # in a row end a search
MOST_REPEATS = 100  # known proposals in a row, after which nothing new is expected
WORKER = "worker:"  # user attributes of the study: one for each process that took part, true while it does


class ActiveStudy(Study):
    """A study to which this process adds trials.

    Args:
        location: the study's name and storage; a study that exists is continued.
        sampler: what proposes ratios.
        space: what is searched.
        objective: what is maximised.
        identity: what must be equal for two trials to be comparable, besides space and objective.
        target: how many trials to evaluate over all processes; failed ones count.
        seed: the seed of the proposals.
        metrics_of: returns the metrics of a trial's run; None if the run did not finish. It is asked about trials
            whose process ended before it could record them.

    Raises:
        InputError: a storage that cannot be used, or the study of another search.
    """

    def __init__(
        self,
        location: Location,
        sampler: SamplerChoice,
        space: Space,
        objective: Objective,
        identity: Mapping[str, Any],
        target: int,
        seed: int = 0,
        metrics_of: Callable[[int], Mapping[str, float] | None] = lambda number: None,
    ) -> None:
        self.space, self.objective, self.target, self.metrics_of = space, objective, target, metrics_of
        self.directions = sampler.directions
        self.distributions = distributions(space)
        self.worker = f"{WORKER}{this_worker()}"
        self.errors: list[str] = []
        with storage_errors(f"search.storage={shown(location.storage)}: cannot be used", f"; {OTHER_STORAGE}"):
            self.backend = open_storage(location.storage)
            super().__init__(
                optuna.create_study(
                    storage=self.backend, study_name=location.study, directions=self.directions, load_if_exists=True
                )
            )
            self._check({**identity, **space.describe(), **objective.describe(), "directions": [*self.directions]})
            self.optuna_study.set_user_attr(self.worker, True)
        others = self._take_over()
        before = self.optuna_study.get_trials(deepcopy=False)
        workers = sum(key.startswith(WORKER) for key in self.optuna_study.user_attrs)
        entropy = [seed, len(before), workers, *([zlib.crc32(self.worker.encode())] if others else [])]
        fresh_seed = int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1)
        self.optuna_study.sampler = self._sign(sampler.make(space, before, seed, fresh_seed))

    def close(self) -> None:
        """Records that this process no longer works on its trials."""
        self.optuna_study.set_user_attr(self.worker, False)

    @property
    def remaining(self) -> int:
        """Returns how many trials are neither evaluated nor running; those to be tried again are among them."""
        states = [trial.state for trial in self.optuna_study.get_trials(deepcopy=False)]
        planned = self.target - len(self.trials) - states.count(TrialState.RUNNING)
        return max(planned, states.count(TrialState.WAITING))

    def ask(self, count: int) -> list[Trial]:
        """Returns up to `count` sets of ratios that no process has tried; none when the search is complete."""
        asked: list[Trial] = []
        if self.remaining < count:
            self._take_over()
        for _ in range(min(count, self.remaining)):
            trial = self._propose()
            if trial is None:
                break
            asked.append(trial)
        return asked

    def tell(self, trial: Trial, metrics: Mapping[str, float]) -> Trial:
        """Records a finished run; without the objective's metrics it has failed.

        Returns:
            the trial with its reward and objective, or with its error.
        """
        try:
            reward = self.objective.reward(metrics)
        except InputError as error:
            return self.fail(trial, str(error))
        value = self.objective.value(reward, trial.ratios)
        self._note(trial.number, reward=reward, objective=value, ratios=trial.ratios)
        values = [value] if len(self.directions) == 1 else [reward, trial.total]
        self.optuna_study.tell(trial.number, values)
        self.errors.clear()
        return Trial(trial.number, trial.ratios, reward, value)

    def fail(self, trial: Trial, error: str) -> Trial:
        """Records a run without a result, and returns the trial with its error."""
        self._note(trial.number, error=error, ratios=trial.ratios)
        self.optuna_study.tell(trial.number, state=TrialState.FAIL)
        self.errors.append(error)
        return Trial(trial.number, trial.ratios, error=error)

    def give_up(self, number: int) -> None:
        """Records that a trial's run was interrupted; its ratios are proposed again when the search goes on."""
        trial = self.optuna_study.get_trials(deepcopy=False)[number]
        self._leave_out(number, "interrupted; its ratios are tried again")  # fails where another process was first
        if self.distributions.keys() <= trial.params.keys():
            self.optuna_study.enqueue_trial(trial.params)

    def check_errors(self) -> None:
        """Ends a search whose runs keep failing.

        Raises:
            InputError: the last trials all failed with the same error.
        """
        last = self.errors[-SAME_ERRORS:]
        if len(last) == SAME_ERRORS and len(set(last)) == 1:
            raise InputError(f"{SAME_ERRORS} trials in a row failed: {last[0]}")

    def _check(self, identity: Mapping[str, Any]) -> None:
        identity = json.loads(json.dumps(identity, default=str))  # as the storage returns it
        if before := self.identity:
            check_identity(self.name, before, identity)
        else:
            self.optuna_study.set_user_attr("identity", identity)

    def _take_over(self) -> set[str]:
        """Settles trials that ended processes left running, and returns the processes that may still work.

        Optuna's heartbeats would need `study.optimize` and a database, so processes are looked up here.
        """
        running = self.optuna_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        workers = {key: active for key, active in self.optuna_study.user_attrs.items() if key.startswith(WORKER)}
        ended = {key for key, active in workers.items() if not active or is_dead(key.removeprefix(WORKER))}
        others = workers.keys() - ended - {self.worker}
        for trial in running:  # looked up before the workers: each made itself known before it asked
            worker = trial.user_attrs.get("worker")
            if worker in ended or (worker is None and not others):
                with suppress(UpdateFinishedTrialError, ValueError):  # another process takes it over too
                    self._settle(trial)
        return others

    def _settle(self, trial: FrozenTrial) -> None:
        """Records the result of a trial whose process did not live to do so; without one, it is to be tried again."""
        metrics = self.metrics_of(trial.number) if self.distributions.keys() <= trial.params.keys() else None
        if metrics is not None:
            self.tell(Trial(trial.number, self.space.ratios(trial.params)), metrics)
        else:
            self.give_up(trial.number)

    def _sign(self, sampler: Any) -> Any:
        """Makes a sampler name this process in each trial before it proposes, which may take a while."""
        before_trial = sampler.before_trial

        def sign_first(study: optuna.Study, trial: FrozenTrial) -> None:
            self._note(trial.number, worker=self.worker)
            before_trial(study, trial)

        sampler.before_trial = sign_first
        return sampler

    def _propose(self) -> Trial | None:
        for _ in range(MOST_REPEATS):
            try:
                asked = self.optuna_study.ask(self.distributions)
            except Exhausted as end:
                self._leave_out(end.number, "nothing left to propose")
                return None
            trial = Trial(asked.number, self.space.ratios(asked.params))
            same = self._same(trial)
            if same is None:
                return trial
            self._leave_out(trial.number, f"the same as trial {same.number}", same.values)
        log.warning("the sampler proposes only ratios that were tried before: the search ends early")
        return None

    def _same(self, trial: Trial) -> FrozenTrial | None:
        """Returns an earlier trial of the same ratios that is running or has a result."""
        key = _key(trial.ratios)
        states = (TrialState.RUNNING, TrialState.COMPLETE)
        for earlier in self.optuna_study.get_trials(deepcopy=False, states=states):
            has_ratios = self.distributions.keys() <= earlier.params.keys()
            if earlier.number < trial.number and has_ratios and _key(self.space.ratios(earlier.params)) == key:
                return earlier
        return None

    def _leave_out(self, number: int, why: str, values: list[float] | None = None) -> None:
        """Ends a trial that is no evaluation; `values` of an equal trial still inform the sampler."""
        self._note(number, left_out=why)
        self.optuna_study.tell(number, values, state=None if values else TrialState.FAIL)

    def _note(self, number: int, **notes: Any) -> None:
        """Sets attributes of a trial, which Optuna's Study offers only for trials that this process asked for."""
        study_id = self.backend.get_study_id_from_name(self.name)
        trial_id = self.backend.get_trial_id_from_study_id_trial_number(study_id, number)
        for name, value in notes.items():
            self.backend.set_trial_user_attr(trial_id, name, value)


def _key(ratios: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(round(ratio, DIGITS) for ratio in ratios.values())
