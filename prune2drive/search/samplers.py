"""Who proposes the next ratios: samplers of Optuna, tuners of NNI. To a study both are Optuna samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from prune2drive.errors import InputError
from prune2drive.search.space import HIGH, Space

ENGINES = {"optuna": "prune2drive.search.optuna_samplers", "nni": "prune2drive.search.nni"}
SCALAR: tuple[Literal["maximize", "minimize"], ...] = ("maximize",)


@dataclass(frozen=True)
class SamplerChoice:
    """An engine and one of its samplers, by name.

    Args:
        levels: values a variable takes in Optuna's grid.
        candidates: ratios that NNI's batch goes through.

    Raises:
        InputError: there is no such engine or sampler, or it cannot run here.
    """

    name: str
    sampler: str
    levels: int = 5
    candidates: Sequence[Mapping[str, float]] = ()
    _module: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise InputError(f"search.engine={self.name}: choose from {', '.join(ENGINES)}")
        object.__setattr__(self, "_module", import_module(ENGINES[self.name]))
        if self.sampler not in self._module.SAMPLERS:
            raise InputError(
                f"search.sampler={self.sampler}: {self.name} has no such sampler; "
                f"choose from {', '.join(self._module.SAMPLERS)}"
            )

    @property
    def directions(self) -> tuple[Literal["maximize", "minimize"], ...]:
        """What is optimised: the objective, or the reward and the sum of the ratios each by itself."""
        return self._module.DIRECTIONS.get(self.sampler, SCALAR)

    def make(self, space: Space, trials: Sequence[FrozenTrial], seed: int, fresh_seed: int) -> BaseSampler:
        """The sampler, knowing what earlier processes tried.

        Args:
            trials: of the study so far.
            seed: of the search, the same whenever it is resumed.
            fresh_seed: one that no earlier process drew from.
        """
        return self._module.make(self, space, trials, seed, fresh_seed)


class Exhausted(Exception):
    """There is nothing left to propose.

    Args:
        number: of the trial that was to get it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: FloatDistribution(space.low, HIGH) for name in space.variables}


class Proposer(BaseSampler):
    """A sampler of whole parameter sets, for what is no sampler of Optuna's.

    Trials that were enqueued have their parameters already.
    """

    def __init__(self, space: Space) -> None:
        self.space = space

    def propose(self, number: int, trials: Sequence[FrozenTrial]) -> Mapping[str, float] | None:
        """Values of the space's variables for a trial; None where there are no more."""
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
