"""Finds runs among run folders by their configuration, whichever command made them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from prune2drive.errors import InputError
from prune2drive.files import read_json
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.results.run_folder import RunFolder
from prune2drive.search.verdict import WINNER
from prune2drive.tasks.components import build

SEARCH = ("engine", "sampler", "space", "low", "symmetric", "objective")
OF_SPACE = {"simplex": ("keep",), "penalty": ("penalty",)}  # what only one kind of search depends on
ANY_DEPTH = 1000  # of a decoder; whether a method cuts at all does not depend on it
WINNERS_TEST = "test/searched_0-*"  # the run of a search's winner on the test split


@dataclass(frozen=True)
class Found:
    """A finished run.

    Args:
        folder: its run folder.
        record: content of its run.json.
        pruning: what says which tokens are kept, as text to compare.
        trials: of the search whose winner it tests; 0 for other runs.
    """

    folder: Path
    record: dict[str, Any]
    pruning: str
    trials: int = 0

    @property
    def setting(self) -> tuple[str, str]:
        """Returns the names of model and dataset."""
        return self.record["choices"]["model"], self.record["choices"]["dataset"]

    @property
    def is_embedded(self) -> bool:
        """Returns whether its questions are those of the benchmark that comes with the package."""
        return self.record["config"]["dataset"]["_target_"].startswith(MiniDrive.__module__)

    @property
    def commit(self) -> str:
        """Returns the run's commit, with `-dirty` where files differed from it."""
        git = self.record["git"]
        return (git["commit"] or "no commit")[:7] + ("-dirty" if git["dirty"] else "")

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Returns the run's metrics.json."""
        return read_json(self.folder / "metrics.json")

    @cached_property
    def scores(self) -> dict[str, float]:
        """Returns question -> score, for paired comparisons."""
        metric = build(OmegaConf.create(self.record["config"]["metrics"]))
        return metric.by_question(list(RunFolder(self.folder).rows()))

    @cached_property
    def frames(self) -> dict[str, str]:
        """Returns question -> frame."""
        return {row.id: f"{row.scene} {row.frame}" for row in RunFolder(self.folder).rows()}

    def asks_the_same(self, cfg: DictConfig) -> bool:
        """Returns whether model, questions and generation are a configuration's, to the option."""
        config, wanted = self.record["config"], _plain(cfg)
        parts = ["model", "generation"] if self.trials else ["model", "generation", "dataset", "seed"]
        return self.setting == setting(cfg) and all(config[part] == wanted[part] for part in parts)


class FoundRuns:
    """The finished runs under some folders; damaged ones are left out.

    Args:
        folders: where to look; those that do not exist hold no runs.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        runs = [run for folder in folders for run in _runs(folder)]
        self.runs = sorted(runs, key=lambda run: run.record.get("finished", ""), reverse=True)

    def like(self, cfg: DictConfig) -> list[Found]:
        """Returns the runs that keep tokens as a configuration says, of any model and questions, the newest first."""
        search = cfg.get("search")
        wanted = search_key(_plain(search), setting(cfg)) if search else pruning_key(_plain(cfg))
        return [run for run in self.runs if run.pruning == wanted]


def setting(cfg: DictConfig) -> tuple[str, str]:
    """Returns the names of a configuration's model and dataset."""
    return cfg.names.model, cfg.names.dataset


def pruning_key(config: dict[str, Any]) -> str:
    """Returns what says which tokens a run keeps: method, ratios, positions; equal for all runs that keep all tokens.

    Raises:
        InputError: the method cannot be built any more.
    """
    pruner = build(OmegaConf.create(config["pruner"])).resolve(ANY_DEPTH)
    if not pruner.cuts:
        return "all tokens"
    positions = config["positions"] or pruner.traits.positions
    return json.dumps([*(config[key] for key in ("pruner", "ratios", "rounding", "budget_axis")), positions])


def search_key(search: dict[str, Any], of: tuple[str, str]) -> str:
    """Returns what says how a search looks for ratios, its number of trials aside.

    Args:
        search: the node `search` of a configuration, or a winner's provenance.
        of: names of model and dataset.
    """
    known = {key: search[key] for key in (*SEARCH, *OF_SPACE[search["space"]])}
    return json.dumps([*of, {**known, "objective": known["objective"] or {"score": 1.0}}], sort_keys=True)


def _runs(folder: Path) -> Iterator[Found]:
    for file in folder.rglob("run.json"):
        try:
            record = read_json(file)
            if record.get("status") == "finished":
                yield Found(file.parent, record, pruning_key(record["config"]))
        except (InputError, KeyError, TypeError):
            continue
    for file in folder.rglob(WINNER):
        known = _plain(OmegaConf.load(file))["provenance"]
        for tested in file.parent.glob(WINNERS_TEST):
            key = search_key(known, (known["model"], known["dataset"]))
            yield Found(tested, read_json(tested / "run.json"), key, known["trials"])


def _plain(cfg: Any) -> dict[str, Any]:
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return plain
