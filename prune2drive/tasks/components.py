"""From a configuration to the objects it names, with whatever is wrong said before the model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from prune2drive.data.dataset import Dataset
from prune2drive.errors import InputError, check_choice, check_whole
from prune2drive.metrics.base import Metric
from prune2drive.models.adapter import Adapter
from prune2drive.pruning import Pruner, RatioPolicy
from prune2drive.pruning.reuse.prefix_cache import check_reuse
from prune2drive.pruning.surgery.checks import validate
from prune2drive.results.submission import Submission
from prune2drive.sample import Prediction
from prune2drive.tasks.prefix_session import PrefixSession
from prune2drive.tasks.process_cache import fingerprint_config, reuse_or_build

LEAST = {"seed": 0, "batch_size": 1, "num_workers": 0, "warm_up": 0, "pictures": 0}


@dataclass
class Components:
    """What a configuration names, built and checked, with the model's weights not loaded yet."""

    dataset: Dataset
    adapter: Adapter
    pruner: Pruner
    policy: RatioPolicy
    metric: Metric
    submission: Submission | None = None
    prefixes: PrefixSession | None = None

    @classmethod
    def build(cls, cfg: DictConfig) -> Components:
        """Builds the parts and looks for everything that can be known to be wrong now.

        Raises:
            InputError: what it finds.
        """
        if cfg.judge:
            build(cfg.judge)  # the metrics' judge too, but here its settings have the names they are given by
        names = {"pruner": cfg.pruner, "policy": cfg.ratios, "metric": cfg.metrics}
        shared = {"dataset": cfg.dataset, "adapter": cfg.model}
        parts = cls(
            **{name: build(node) for name, node in names.items()},
            **{
                name: reuse_or_build(name, fingerprint_config(node), partial(build, node))
                for name, node in shared.items()
            },
        )
        check_metric(parts.metric, parts.dataset)
        if cfg.submission:
            submission: Submission = build(cfg.submission)
            submission.check(parts.dataset.ids)
            parts.submission = submission
        generation: Any = OmegaConf.to_container(cfg.generation, resolve=True)
        parts.adapter.check_options(generation)
        options = {name: cfg[name] for name in ("positions", "rounding", "budget_axis")}
        parts.pruner = validate(parts.pruner, parts.policy, parts.adapter.config, **options)
        if parts.pruner.cuts:
            parts.policy.ratios(parts.dataset.cameras)
        if cfg.on_error == "fail":
            parts.dataset.check()
        if cfg.prefix_cache:
            check_reuse(parts.adapter.config, parts.pruner)
            about = (fingerprint_config(cfg.model), parts.dataset.fingerprint, fingerprint_config(cfg.generation))
            parts.prefixes = reuse_or_build(
                "prefixes",
                "/".join((fingerprint_config(cfg.prefix_cache), *about)),
                lambda: PrefixSession(build(cfg.prefix_cache), about),
            )
        return parts


def check_metric(metric: Metric, dataset: Dataset) -> None:
    """Refuses metrics that can score none of a data set's questions; questions without references are never refused.

    Raises:
        InputError: the questions have references, and the metrics can score none of them.
    """
    has_references = False
    for index, name in enumerate(dataset.ids):
        if (reference := dataset.reference(index)) is not None:
            has_references = True
            if metric.can_score(Prediction(name, dataset.question(index), reference=reference)):
                return
    if has_references:
        raise InputError(
            f"metrics: {type(metric).__name__} can score none of these {len(dataset)} questions; "
            "choose the metrics of the data set, or a judge that scores any answer"
        )


def check_settings(cfg: DictConfig) -> None:
    """The settings that belong to no part.

    Raises:
        InputError: one that is out of range.
    """
    for name, least in LEAST.items():
        check_whole(name, cfg[name], least)
    check_choice("on_error", cfg.on_error, ("fail", "skip"))


def build(node: DictConfig, **more: Any) -> Any:
    """Hydra's instantiate, with our own errors as they are and others in one line.

    Raises:
        InputError: the object refused its configuration.
    """
    try:
        return instantiate(node, _convert_="all", **more)
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key} is not set, and has no default: add {error.full_key}=...") from error
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, (TypeError, ValueError, MisconfigurationException)):
            raise InputError(f"{node.get('_target_')}: {error.__cause__}") from error
        raise
