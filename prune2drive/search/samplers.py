"""Chooses what proposes the next keep ratios: an Optuna sampler, or an NNI tuner that acts as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from prune2drive.errors import InputError, check_choice
from prune2drive.search.space import HIGH, Space

ENGINES = {"optuna": "prune2drive.search.optuna_samplers", "nni": "prune2drive.search.nni"}
SCALAR: tuple[Literal["maximize", "minimize"], ...] = ("maximize",)


@dataclass(frozen=True)
class SamplerChoice:
    """Names a sampler and its settings.

    Args:
        engine: `optuna` or `nni`.
        name: the sampler's name in its engine.
        levels: values of each variable in Optuna's grid.
        candidates: sets of keep ratios (camera -> ratio) that NNI's batch tuner tries.

    Raises:
        InputError: the engine or sampler is unknown or cannot run here.
    """

    engine: str
    name: str
    levels: int = 5
    candidates: Sequence[Mapping[str, float]] = ()
    _module: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("search.engine", self.engine, ENGINES)
        object.__setattr__(self, "_module", import_module(ENGINES[self.engine]))
        samplers = self._module.SAMPLERS
        if self.name not in samplers:
            advice = f"{self.engine} has no such sampler; choose from {', '.join(samplers)}"
            raise InputError(f"search.sampler={self.name}: {advice}")

    @property
    def directions(self) -> tuple[Literal["maximize", "minimize"], ...]:
        """Returns the directions of the objective, or of the reward and the sum of the keep ratios."""
        return self._module.DIRECTIONS.get(self.name, SCALAR)

    def make(self, space: Space, trials: Sequence[FrozenTrial], seed: int, fresh_seed: int) -> BaseSampler:
        """Returns a sampler that knows the trials of earlier processes.

        Args:
            space: the space to search.
            trials: the study's trials so far.
            seed: seed of the search, the same after a resume.
            fresh_seed: seed that no earlier process has used.
        """
        return self._module.make(self, space, trials, seed, fresh_seed)


class Exhausted(Exception):
    """Reports that a sampler has nothing left to propose.

    Args:
        number: number of the trial that got no values.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Returns Optuna's distribution of each variable of a space."""
    return {name: FloatDistribution(space.low, HIGH) for name in space.variables}


class Proposer(BaseSampler):
    """Adapts a method that proposes all variables of a trial at once to an Optuna sampler.

    Enqueued trials keep their values.

    Args:
        space: the space to search.
    """

    def __init__(self, space: Space) -> None:
        self.space = space

    def propose(self, number: int, trials: Sequence[FrozenTrial]) -> Mapping[str, float] | None:
        """Returns variable -> value for a trial, or None when nothing remains to propose.

        Args:
            number: number of the trial.
            trials: the study's trials so far.
        """
        raise NotImplementedError

    def infer_relative_search_space(self, study: Any, trial: FrozenTrial) -> dict[str, Any]:
        return distributions(self.space)

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        if "fixed_params" in trial.system_attrs:
            return {}
        values = self.propose(trial.number, study.get_trials(deepcopy=False))
        if values is None:
            raise Exhausted(trial.number)
        return dict(values)

    def sample_independent(self, study: Any, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        raise AssertionError(f"{param_name} was not proposed")
