"""Builds and checks the parts of a search before its first trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from prune2drive.data.dataset import frame_name
from prune2drive.errors import InputError, check_whole
from prune2drive.metrics.base import Metric
from prune2drive.pruning.selection import budget
from prune2drive.results.resume import SAME_ON_RESUME
from prune2drive.search.objective import Objective
from prune2drive.search.runner import RunLauncher
from prune2drive.search.samplers import SamplerChoice
from prune2drive.search.space import Space, make_space
from prune2drive.tasks.components import Components, build, check_metric, check_settings, refuse_options

SPLITS = ("search", "val", "test")
HEADLINE = {"score": 1.0}
LEAST = {"trials": 1, "finalists": 1, "random_draws": 0, "seed": 0}


@dataclass(frozen=True)
class Plan:
    """Holds a search whose settings have all been checked.

    Args:
        settings: the node `search` of the configuration.
        splits: options of the dataset for each name in SPLITS.
        questions: fingerprint and number of questions for each name in SPLITS.
        names: the configuration's choice of `model`, `dataset` and `pruner`.
        tokens: visual tokens of each camera in the first sample.
        rounding: how a ratio becomes a budget, `nearest` or `seed`.
        identity: what must be equal for two trials to be comparable.
        metric: what scores the answers of a run.
        sampler: what proposes ratios.
        space: what is searched.
        objective: what is maximised.
    """

    settings: DictConfig
    splits: dict[str, dict[str, Any]]
    questions: dict[str, dict[str, Any]]
    names: dict[str, str]
    tokens: Mapping[str, int]
    rounding: str
    identity: dict[str, Any]
    metric: Metric
    sampler: SamplerChoice
    space: Space
    objective: Objective


def make_plan(settings: DictConfig, launcher: RunLauncher) -> Plan:
    """Builds all parts of a search without loading the model's weights.

    Args:
        settings: the node `search` of the configuration.
        launcher: composes the configuration of a trial.

    Raises:
        InputError: a setting that is wrong, or splits that share a frame.
    """
    for key, least in LEAST.items():
        check_whole(f"search.{key}", settings[key], least)
    check_whole("search.at_once", settings.at_once, null=True)
    objective = Objective(_plain(settings.objective or HEADLINE), settings.penalty)
    sampler = SamplerChoice(settings.engine, settings.sampler, settings.levels, _plain(settings.candidates))
    splits = {name: _split(settings, name) for name in SPLITS}
    cfg, choices = launcher.compose(splits["search"])
    check_settings(cfg)
    refuse_options(cfg, "a search", ("shard",))
    if choices["task"] != "evaluate":
        raise InputError(f"task={choices['task']}: a search compares answers; leave the task out")
    parts = Components.build(cfg)
    check_metric(parts.metric, parts.dataset)
    if not parts.pruner.cuts:
        raise InputError(f"pruner={choices['pruner']}: drops no tokens, so there are no ratios to search")
    datasets = {"search": parts.dataset}
    for name in ("val", "test"):
        datasets[name] = build(launcher.compose(splits[name])[0].dataset)
    _check_apart(datasets)
    questions = {name: {"fingerprint": data.fingerprint, "size": len(data)} for name, data in datasets.items()}
    resolved = _plain(cfg)
    tokens = parts.adapter.collate([parts.dataset[0]]).token_maps[0].counts
    space = make_space(
        settings.space,
        parts.dataset.cameras,
        settings.keep,
        settings.low,
        settings.symmetric,
        tokens,
        kept_tokens(dict.fromkeys(tokens, settings.keep), tokens, cfg.rounding),
    )
    return Plan(
        settings=settings,
        splits=splits,
        questions=questions,
        names={key: str(choices[key]) for key in ("model", "dataset", "pruner")},
        tokens=tokens,
        rounding=cfg.rounding,
        identity={part: resolved[part] for part in SAME_ON_RESUME if part != "ratios"}
        | {"questions": questions["search"]},
        metric=parts.metric,
        sampler=sampler,
        space=space,
        objective=objective,
    )


def kept_tokens(ratios: Mapping[str, float], tokens: Mapping[str, int], rounding: str) -> int:
    """Returns how many visual tokens of a sample these keep ratios retain.

    Args:
        ratios: camera -> keep ratio.
        tokens: camera -> visual tokens of a sample.
        rounding: how a ratio becomes a budget, `nearest` or `seed`.

    Raises:
        InputError: a ratio that retains no token.
    """
    try:
        return sum(budget(ratio, tokens[camera], rounding) for camera, ratio in ratios.items())
    except ValueError as error:
        raise InputError(f"search.keep: {error}") from None


def _split(settings: DictConfig, name: str) -> dict[str, Any]:
    """Returns the options of the dataset for a split.

    Raises:
        InputError: the split is null or is not a set of options.
    """
    split = _plain(OmegaConf.select(settings, f"splits.{name}"))
    if not isinstance(split, dict):
        raise InputError(f"search.splits.{name}={'null' if split is None else split}: give options of the dataset")
    return split


def _check_apart(datasets: Mapping[str, Any]) -> None:
    """Checks that the winner is not chosen on frames that it is tested on.

    Raises:
        InputError: two splits share a frame.
    """
    seen: dict[str, str] = {}
    for name, dataset in datasets.items():
        for frame in {frame_name(dataset, index) for index in range(len(dataset))}:
            if seen.setdefault(frame, name) != name:
                raise InputError(f"search.splits: {seen[frame]} and {name} share frame {frame}; they must not overlap")


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
