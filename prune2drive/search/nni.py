"""Runs NNI's tuners in this process, without its server (https://nni.readthedocs.io/en/v3.0/hpo/tuners.html)."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from prune2drive.errors import InputError
from prune2drive.search.samplers import Proposer, SamplerChoice
from prune2drive.search.space import HIGH, Space

try:
    import nni
    from nni.algorithms.hpo.batch_tuner import BatchTuner
    from nni.algorithms.hpo.evolution_tuner import EvolutionTuner
    from nni.algorithms.hpo.gridsearch_tuner import GridSearchTuner
    from nni.algorithms.hpo.random_tuner import RandomTuner
    from nni.algorithms.hpo.tpe_tuner import TpeTuner
except ImportError as error:
    raise InputError(f"search.engine=nni: NNI cannot be imported ({error}); search.engine=optuna can") from error

DIRECTIONS: Mapping[str, tuple[str, ...]] = {}
SAMPLERS = ("tpe", "evolution", "random", "grid", "batch")


def make(choice: SamplerChoice, space: Space, trials: Sequence[FrozenTrial], seed: int, fresh_seed: int) -> BaseSampler:
    """Returns a tuner that knows the trials finished by earlier processes."""
    logging.getLogger("nni").setLevel(logging.WARNING)
    logging.getLogger("hyper_opt").setLevel(logging.WARNING)
    boxes = {name: {"_type": "uniform", "_value": [space.low, HIGH]} for name in space.variables}
    finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if choice.name == "batch":
        if not choice.candidates:
            raise InputError("search.candidates is empty: list the keep ratios to try")
        options = [space.values(ratios) for ratios in choice.candidates]
        with _silent():  # it warns about choices that its documentation uses as the example
            return Tuned(space, BatchTuner(), {"candidates": {"_type": "choice", "_value": options}}, fresh_seed)
    if choice.name == "evolution":
        return Evolved(space, boxes, finished, fresh_seed)
    tuner = {
        "tpe": lambda: TpeTuner("maximize", seed=fresh_seed),
        "random": lambda: RandomTuner(seed=fresh_seed),
        "grid": GridSearchTuner,
    }[choice.name]()
    tuned = Tuned(space, tuner, boxes, fresh_seed)
    if choice.name != "random" and finished:
        tuner.import_data([{"parameter": _named(space, each), "value": each.values[0]} for each in finished])
    return tuned


class Tuned(Proposer):
    """Adapts an NNI tuner to a sampler: it proposes a trial's values and receives the trial's objective.

    Args:
        space: the space to search.
        tuner: a tuner of NNI.
        search_space: the space in NNI's format.
        seed: seed of Python's random numbers while the tuner runs.
    """

    def __init__(self, space: Space, tuner: Any, search_space: Mapping[str, Any], seed: int) -> None:
        super().__init__(space)
        self.tuner, self.asked = tuner, set[int]()
        self.random = random.Random(seed).getstate()
        with self.own_random():
            tuner.update_search_space(dict(search_space))

    @contextmanager
    def own_random(self) -> Iterator[None]:
        """Gives the tuner its own random state, since a run in this process reseeds Python's."""
        outside = random.getstate()
        random.setstate(self.random)
        try:
            yield
        finally:
            self.random = random.getstate()
            random.setstate(outside)

    def propose(self, number: int, trials: Sequence[FrozenTrial]) -> Mapping[str, float] | None:
        try:
            with self.own_random():
                values = self.tuner.generate_parameters(number)
        except nni.NoMoreTrialError:
            return None
        self.asked.add(number)
        return {name: min(HIGH, max(self.space.low, float(value))) for name, value in values.items()}

    def after_trial(self, study: Any, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if trial.number not in self.asked:
            return
        self.asked.remove(trial.number)
        with self.own_random():
            if state == TrialState.COMPLETE and values:
                self.tuner.receive_trial_result(trial.number, _named(self.space, trial), values[0])
            else:
                self.tuner.trial_end(trial.number, False)


class Evolved(Tuned):
    """Adds a seed and resuming to NNI's evolution tuner, which has neither.

    Args:
        space: the space to search.
        search_space: the space in NNI's format.
        finished: finished trials of earlier processes, which become evaluated individuals.
        seed: seed of the tuner.
    """

    def __init__(
        self, space: Space, search_space: Mapping[str, Any], finished: Sequence[FrozenTrial], seed: int
    ) -> None:
        super().__init__(space, EvolutionTuner("maximize"), search_space, seed)
        self.tuner.random_state = np.random.RandomState(seed)
        self.tuner.population.clear()
        for _ in range(self.tuner.population_size):
            self.tuner._random_generate_individual()
        for trial in finished:
            self.propose(trial.number, ())
            self.tuner.running_trials[trial.number].config = _named(space, trial)
            self.after_trial(None, trial, TrialState.COMPLETE, trial.values)

    def propose(self, number: int, trials: Sequence[FrozenTrial]) -> Mapping[str, float] | None:
        if not self.tuner.population:  # more trials at once than there are individuals
            self.tuner._random_generate_individual()
        return super().propose(number, trials)


@contextmanager
def _silent() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _named(space: Space, trial: FrozenTrial) -> dict[str, float]:
    return {name: trial.params[name] for name in space.variables}
