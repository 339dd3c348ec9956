"""The evaluation: model x dataset x pruner x ratios -> answers, scores and costs in a run folder."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from prune2drive.data.datamodule import Batch, DriveDataModule
from prune2drive.errors import InputError
from prune2drive.metrics.efficiency import Efficiency
from prune2drive.metrics.flops import VisionFlops
from prune2drive.metrics.timing import peak_memory_mb, reset_peak_memory, timed
from prune2drive.models.adapter import Adapter, Prompts
from prune2drive.provenance import describe_run
from prune2drive.pruning import Pruner, RatioPolicy, Trace, prune
from prune2drive.report.publish import pictures, save_picture, show
from prune2drive.results import RunFolder
from prune2drive.sample import Prediction, pack_indices

log = logging.getLogger(__name__)

SAME_ON_RESUME = ("model", "dataset", "metrics", "pruner", "ratios", "positions", "rounding", "generation", "seed")
CHOICES = {"positions": ("keep", "renumber"), "rounding": ("nearest", "seed"), "on_error": ("fail", "skip")}


@dataclass
class Parts:
    """What a configuration names, built and checked, with the model's weights not loaded yet."""

    dataset: Any
    adapter: Adapter
    pruner: Pruner
    policy: RatioPolicy
    metric: Any

    @classmethod
    def build(cls, cfg: DictConfig) -> Parts:
        """Builds the parts and looks for everything that can be known to be wrong now.

        Raises:
            InputError: what it finds.
        """
        names = {
            "pruner": cfg.pruner,
            "policy": cfg.ratios,
            "metric": cfg.metrics,
            "dataset": cfg.dataset,
            "adapter": cfg.model,
        }
        parts = cls(**{name: build(node) for name, node in names.items()})
        parts.adapter.check_options(OmegaConf.to_container(cfg.generation, resolve=True))
        layers = parts.adapter.text_config.num_hidden_layers
        if parts.pruner.layer >= layers:
            raise InputError(f"pruner.layer={parts.pruner.layer}: the model's decoder has layers 0 to {layers - 1}")
        if parts.pruner.drops:
            parts.policy.ratios(parts.dataset.cameras)
        if cfg.on_error == "fail":
            parts.dataset.check()
        return parts


def _check_settings(cfg: DictConfig) -> None:
    for name, least in {"seed": 0, "batch_size": 1, "num_workers": 0, "warm_up": 0, "pictures": 0}.items():
        if not isinstance(cfg[name], int) or cfg[name] < least:
            raise InputError(f"{name}={cfg[name]}: use a whole number, {least} or more")
    for name, choices in CHOICES.items():
        if cfg[name] not in choices:
            raise InputError(f"{name}={cfg[name]}: choose from {', '.join(choices)}")


def build(node: DictConfig, **more: Any) -> Any:
    """Hydra's instantiate, with our own errors as they are and others in one line.

    Raises:
        InputError: the object refused its configuration.
    """
    try:
        return instantiate(node, **more)
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key} is not set, and has no default: add {error.full_key}=...") from error
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, (TypeError, ValueError, MisconfigurationException)):
            raise InputError(f"{node.get('_target_')}: {error.__cause__}") from error
        raise


class Evaluation(LightningModule):
    """Answers every question once; each batch's rows are on disk before the next begins."""

    def __init__(self, parts: Parts, cfg: DictConfig, folder: RunFolder) -> None:
        super().__init__()
        self.parts, self.cfg, self.folder = parts, cfg, folder
        self.generation: Any = OmegaConf.to_container(cfg.generation, resolve=True)
        self.vision_flops: VisionFlops | None = VisionFlops(parts.adapter.config)
        self.peak_mb: float | None = None
        self.warm_up = cfg.warm_up
        self.pictures = cfg.pictures
        if getattr(parts.adapter.model, "hf_device_map", None) is None:
            self.model = parts.adapter.model  # registered, so that the trainer places it

    def on_test_start(self) -> None:
        self.folder = RunFolder(self.folder.path, self.global_rank)
        reset_peak_memory(self.device)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        if batch.samples:
            for _ in range(self.warm_up):
                self.answer(batch)
            self.warm_up = 0
        self.folder.append([*batch.failures, *(self.answer(batch) if batch.samples else ())])

    def on_test_end(self) -> None:
        self.peak_mb = peak_memory_mb(self.device)
        self.trainer.strategy.barrier("all rows are written")

    def answer(self, batch: Batch) -> list[Prediction]:
        """Generates answers to a batch of samples, pruned."""
        parts, prompts = self.parts, batch.inputs
        model = parts.adapter.model
        pruning = prune(
            model,
            parts.pruner,
            parts.policy,
            token_map=prompts.token_maps,
            sample_ids=[sample.id for sample in batch.samples],
            positions=self.cfg.positions,
            rounding=self.cfg.rounding,
        )
        with pruning as trace, timed(model, parts.adapter.vision_modules) as times:
            answers = parts.adapter.generate(prompts, **self.generation)
        rows = len(batch.samples)
        seconds = {
            "vision": times.vision,
            "select": trace.select_seconds,
            "prefill": times.prefill,
            "decode": times.decode,
        }
        vision_flops = self.count_vision(prompts, rows)
        shared = {phase: total / rows for phase, total in seconds.items()}
        predictions = []
        for row, (sample, answer) in enumerate(zip(batch.samples, answers, strict=True)):
            at = row * len(trace.kept) // rows  # beams repeat each prompt in place
            predictions.append(
                Prediction(
                    id=sample.id,
                    question=sample.question,
                    answer=answer.text,
                    reference=sample.answer,
                    tags=sample.tags,
                    scene=sample.scene,
                    frame=sample.frame,
                    new_tokens=answer.new_tokens,
                    flops={"selection": trace.select_flops[at]} | vision_flops,
                    times=shared,
                    batch=batch.samples[0].id,
                    **_kept(trace, at, prompts),
                )
            )
        self._draw(batch, trace)
        return predictions

    def count_vision(self, prompts: Prompts, rows: int) -> dict[str, int]:
        """FLOPs of encoding one sample's images; nothing for towers that cannot be counted without pixels."""
        if self.vision_flops is None:
            return {}
        try:
            return {"vision": self.vision_flops(prompts.inputs) // rows}
        except InputError as error:
            log.warning("flops/vision is left out: %s", error)
            self.vision_flops = None
            return {}

    def _draw(self, batch: Batch, trace: Trace) -> None:
        """Pictures of the first samples, on the first rank, not of the warm-up."""
        if self.global_rank or self.warm_up:
            return
        for row, sample in enumerate(batch.samples[: self.pictures]):
            at = row * len(trace.kept) // len(batch.samples)
            images = self.parts.dataset[list(self.parts.dataset.ids).index(sample.id)].images
            save_picture(self.folder.path, sample, images, trace.token_maps[at], trace.kept[at])
            self.pictures -= 1


def _kept(trace: Trace, at: int, prompts: Prompts) -> dict[str, Any]:
    token_map = trace.token_maps[at]
    return {
        "text_tokens": token_map.length - trace.full_tokens[at],
        "full_counts": token_map.counts,
        "kept_counts": {camera: len(kept) for camera, kept in trace.kept[at].items()},
        "kept": {camera: pack_indices(kept, token_map.counts[camera]) for camera, kept in trace.kept[at].items()},
        "stages": trace.stages[at],
    }


def run(cfg: DictConfig) -> float:
    """Evaluates one configuration and leaves its run folder.

    Returns:
        The dataset's headline score; NaN where no answer could be scored (a file of questions only).

    Raises:
        InputError: bad input, before the model is loaded where it can be known then.
    """
    _check_settings(cfg)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(cfg.seed, verbose=False)
    folder = RunFolder(cfg.folder)
    parts = Parts.build(cfg)
    if parts.adapter.cpu_threads:
        torch.set_num_threads(parts.adapter.cpu_threads)
    record = {
        **describe_run(),
        "status": "running",
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seed": cfg.seed,
        "is_noise": parts.adapter.is_noise,
        "choices": OmegaConf.to_container(cfg.names, resolve=True),
        "config": OmegaConf.to_container(cfg, resolve=True),
        "dataset": {"fingerprint": parts.dataset.fingerprint, "size": len(parts.dataset)},
    }
    logger = build(cfg.logger, save_dir=str(folder.path)) if cfg.logger else False
    trainer = build(
        cfg.trainer,
        logger=logger,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=str(folder.path),
    )
    done: set[str] = set()
    if trainer.is_global_zero:  # the other ranks are told what remains when their loaders are made
        if cfg.resume:
            done = _resume(folder, record)
        elif folder.has_rows:
            raise InputError(
                f"{folder.path} holds another run: go on with resume={folder.path}, or choose another folder"
            )
        folder.write_json("run.json", record)
    data = DriveDataModule(parts.dataset, parts.adapter.collate, cfg.batch_size, cfg.num_workers, done, cfg.on_error)
    module = Evaluation(parts, cfg, folder)
    if data.remaining or trainer.world_size > 1:
        trainer.test(module, data, verbose=False)
    if not trainer.is_global_zero:
        return float("nan")
    return _finish(folder, parts, record, trainer, module)


def _resume(folder: RunFolder, record: dict[str, Any]) -> set[str]:
    """The ids that an earlier run in this folder finished.

    Raises:
        InputError: that run was another one.
    """
    before = folder.read_json("run.json")
    for part in SAME_ON_RESUME:
        was, now = before.get("config", {}).get(part), record["config"].get(part)
        if was != now:
            raise InputError(f"resume={folder.path}: {part} was {was}, now {now}")
    if before.get("dataset") != record["dataset"]:
        raise InputError(
            f"resume={folder.path}: the dataset has changed since ({before.get('dataset')} -> {record['dataset']})"
        )
    done = folder.keep_answered()
    log.info("resuming %s: %d of %d questions are answered", folder.path, len(done), record["dataset"]["size"])
    return done


def _peak_mb(folder: RunFolder, module: Evaluation) -> float | None:
    """Peak memory of the whole run, of which an earlier process may have done all that was to do."""
    before = folder.read_json("metrics.json") if (folder.path / "metrics.json").exists() else {}
    peaks = [peak for peak in (before.get("memory/peak_mb"), module.peak_mb) if peak is not None]
    return max(peaks, default=None)


def _finish(folder: RunFolder, parts: Parts, record: dict[str, Any], trainer: Any, module: Evaluation) -> float:
    """Scores all rows, those of earlier runs included, and writes and publishes the result."""
    folder.merge({name: place for place, name in enumerate(parts.dataset.ids)})
    predictions = list(folder.rows())
    failed = sum(prediction.error is not None for prediction in predictions)
    record["counts"] = {"planned": len(parts.dataset), "done": len(predictions) - failed, "failed": failed}
    metrics: dict[str, float] = {}
    if failed < len(predictions):
        metrics |= parts.metric(predictions)
        efficiency = Efficiency(parts.adapter.text_config, parts.adapter.model.dtype.itemsize)
        metrics |= efficiency.compute(predictions, _peak_mb(folder, module))
    else:
        log.error("none of the %d questions could be answered: see `error` in predictions.jsonl", len(predictions))
    folder.write_json("metrics.json", metrics)
    record |= {"status": "finished", "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    folder.write_json("run.json", record)
    show(folder.path, record, metrics, predictions)
    for logger in trainer.loggers:
        logger.publish(record, metrics, predictions, pictures(folder.path, predictions))
    if failed:
        log.warning(
            "%d of %d samples failed and are not in the scores: see `error` in predictions.jsonl",
            failed,
            len(predictions),
        )
    if "score" not in metrics:
        log.warning("no score: these questions have no reference answers, or no tags that say how to score them")
    return metrics.get("score", float("nan"))
