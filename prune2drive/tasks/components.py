"""Builds the objects that a configuration names, and refuses what is wrong before the model is loaded."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue
from PIL.Image import Image
from torch import Tensor

from prune2drive.data.datamodule import check_batch_size
from prune2drive.data.dataset import Dataset
from prune2drive.data.grey import GreyImages
from prune2drive.data.shard import Shard
from prune2drive.errors import InputError, check_choice, check_whole, shortened
from prune2drive.metrics.base import Metric
from prune2drive.models.adapter import Adapter
from prune2drive.pruning import Pruner, RatioPolicy
from prune2drive.pruning.surgery.checks import validate
from prune2drive.results.submission import Submission
from prune2drive.sample import Prediction
from prune2drive.tasks.config import in_multirun
from prune2drive.tasks.frame_session import FrameSession
from prune2drive.tasks.process_cache import fingerprint_config, reuse_or_build

log = logging.getLogger(__name__)

LEAST = {"seed": 0, "num_workers": 0, "latency.questions": 0, "latency.warm_up": 0, "pictures": 0, "explorer": 0}


@dataclass
class Components:
    """Holds what a configuration names, built and checked; the model's weights are not loaded yet."""

    dataset: Dataset
    adapter: Adapter
    pruner: Pruner
    policy: RatioPolicy
    metric: Metric
    submission: Submission | None = None
    session: FrameSession | None = None

    @classmethod
    def build(cls, cfg: DictConfig) -> Components:
        """Builds the components and checks everything that can be known to be wrong before the model is loaded.

        Adapter and dataset of the previous run are used again where they would be the same and the run is one of a
        multirun, or has a prefix cache.

        Raises:
            InputError: a component that cannot be built, or components that do not fit together.
        """
        if cfg.judge:
            build(cfg.judge)  # the metrics' judge too, but here its settings have the names they are given by
        shares = in_multirun() or bool(cfg.prefix_cache)
        components = cls(
            pruner=build(cfg.pruner),
            policy=build(cfg.ratios),
            metric=build(cfg.metrics),
            dataset=_shared("dataset", cfg.dataset) if shares else build(cfg.dataset),
            adapter=_shared("adapter", cfg.model) if shares else build(cfg.model),
            submission=build(cfg.submission) if cfg.submission else None,
        )
        if cfg.images == "grey":
            components.dataset = GreyImages(components.dataset)
        dataset, adapter = components.dataset, components.adapter
        if components.submission:
            components.submission.check(dataset.ids)
        generation: Any = OmegaConf.to_container(cfg.generation, resolve=True)
        adapter.check_options(generation)
        options = {name: cfg[name] for name in ("positions", "rounding", "budget_axis")}
        components.pruner = validate(components.pruner, components.policy, adapter.config, **options)
        if components.pruner.cuts:
            components.policy.ratios(dataset.cameras)
        else:
            log.info("pruner=%s keeps every token: the ratios are not used", cfg.names.pruner)
        if cfg.on_error == "fail":
            dataset.check()
        if cfg.prefix_cache and not components.pruner.traits.resizes_images:  # there vision depends on the ratios
            about = (fingerprint_config(cfg.model), dataset.fingerprint, fingerprint_config(cfg.generation))
            components.session = reuse_or_build(
                "session",
                "/".join((fingerprint_config(cfg.prefix_cache), *about)),
                lambda: FrameSession(build(cfg.prefix_cache), about),
            )
        return components

    def views(self, row: Prediction) -> dict[str, tuple[Image, Tensor]]:
        """Returns camera -> photo of an answered question, and the rectangles of the camera's tokens; float [N, 4].

        Raises:
            InputError: a photo cannot be read.
        """
        sample = self.dataset[self.dataset.ids.index(row.id)]
        (token_map,) = self.adapter.collate([sample]).token_maps
        return {camera: (sample.images[camera], token_map.boxes(camera)) for camera in row.kept}


def _shared(kind: str, node: DictConfig) -> Any:
    """Returns the previous run's object where this configuration would build the same, else a new one."""
    return reuse_or_build(kind, fingerprint_config(node), partial(build, node))


def check_metric(metric: Metric, dataset: Dataset) -> None:
    """Refuses metrics that can score none of a data set's questions; questions without references are never refused.

    Raises:
        InputError: the questions have references, and the metrics can score none of them.
    """
    reason = ""
    for row in map(dataset.row, range(len(dataset))):
        if row.reference is not None and not (reason := metric.unscorable_reason(row)):
            return
    if reason:
        name = type(metric).__name__
        raise InputError(f"metrics: {name} can score none of these {len(dataset)} questions: {reason}")


def refuse_options(cfg: DictConfig, task: str, options: Sequence[str]) -> None:
    """Refuses options that a task would leave unread.

    Args:
        cfg: the configuration.
        task: the task as a user names it, such as `task=flops`.
        options: names of the options.

    Raises:
        InputError: one of them is set.
    """
    for name in options:
        if cfg[name] is not None:
            raise InputError(f"{name}={shortened(str(cfg[name]))}: {task} has no use for it; leave {name} out")


def check_settings(cfg: DictConfig) -> None:
    """Checks the settings that belong to no component.

    Raises:
        InputError: a setting that is out of range.
    """
    for name, least in LEAST.items():
        check_whole(name, OmegaConf.select(cfg, name), least)
    check_choice("on_error", cfg.on_error, ("fail", "skip"))
    if cfg.shard is not None:
        Shard.parse(cfg.shard)
    check_batch_size(cfg.batch_size)
    check_choice("batching", cfg.batching, ("frame", "question"))
    check_choice("images", cfg.images, ("shown", "grey"))


def build(node: DictConfig, **more: Any) -> Any:
    """Instantiates an object as Hydra does, with our own errors as they are and others in one line.

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
        if isinstance(error.__cause__, (TypeError, ValueError, MisconfigurationException, StrictDataclassError)):
            raise InputError(f"{node.get('_target_')}: {' '.join(str(error.__cause__).split())}") from error
        raise
