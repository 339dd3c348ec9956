"""The search for keep ratios as a Hydra sweeper: `-m search=tpe`.

Hydra imports this file with every command, so all that is heavy is imported when a search begins.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

INTERRUPTED = 130  # exit code, as a shell gives it


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="ratio_search",
    node={"_target_": "hydra_plugins.prune2drive_search.sweeper.RatioSearchSweeper"},
    provider="prune2drive_search",
)


class RatioSearchSweeper(Sweeper):
    """Every trial is a run, started by whichever launcher there is (see `prune2drive.search.run_search`)."""

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = params  # what an experiment would have Hydra's own sweeper go through

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from prune2drive.errors import InputError
        from prune2drive.search.run_search import run_search
        from prune2drive.search.runner import RunLauncher

        try:
            if self.params:
                raise InputError(f"{', '.join(self.params)}: swept by an experiment; a search is of one configuration")
            return run_search(self.config.search, RunLauncher(self.config, self.context, self.task, arguments))
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
