"""The Lightning loop: prunes, generates, measures, and writes each batch's rows as it finishes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from prune2drive.data.datamodule import AUTO, AUTO_START, Batch, DriveDataModule
from prune2drive.errors import InputError
from prune2drive.metrics.flops import VisionFlops
from prune2drive.metrics.object_coverage import count_covered_objects
from prune2drive.metrics.timing import peak_memory_mb, reset_peak_memory
from prune2drive.models.prompts import Answer, Prompts
from prune2drive.pruning import Pruner, RatioPolicy, Trace, prune
from prune2drive.pruning.reuse.frame_states import Frames
from prune2drive.pruning.reuse.frames import FrameHooks, prune_frames
from prune2drive.pruning.surgery.early_exit import stop_at
from prune2drive.report.token_overlay import save_picture
from prune2drive.results.run_folder import RunFolder
from prune2drive.results.selections import Selections, selection_of
from prune2drive.sample import ObjectCount, Prediction, pack_indices
from prune2drive.tasks.components import Components
from prune2drive.tasks.frame_session import ids_of
from prune2drive.tasks.latency import LATENCY, measure_latency

log = logging.getLogger(__name__)


class Evaluation(LightningModule):
    """Answers every question once; each batch's rows are on disk before the next begins.

    Attributes:
        is_timed: whether the latency of some questions is measured before.
        peak_mb: peak memory, after the run.
    """

    is_timed = True

    def __init__(
        self, components: Components, cfg: DictConfig, folder: RunFolder, pictures: int, explored: int = 0
    ) -> None:
        super().__init__()
        self.components, self.cfg, self.folder = components, cfg, folder
        self.options = {name: cfg[name] for name in ("positions", "rounding", "budget_axis")}
        self.generation: Any = OmegaConf.to_container(cfg.generation, resolve=True)
        self.peak_mb: float | None = None
        self.since = 0.0
        self.most = AUTO_START if cfg.batch_size == AUTO else cfg.batch_size
        self.pictures, self.explored = pictures, explored
        if getattr(components.adapter.model, "hf_device_map", None) is None:
            self.model = components.adapter.model  # registered, so that the trainer places it

    @property
    def data(self) -> DriveDataModule:
        """What the batches come from."""
        return self.trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning

    @cached_property
    def selections(self) -> Selections:
        """This rank's part of what the explorer shows."""
        return Selections(self.folder.path, math.ceil(self.explored / self.trainer.world_size), self.global_rank)

    @cached_property
    def count_vision(self) -> VisionFlops | None:
        return VisionFlops(self.components.adapter.config)

    def on_test_start(self) -> None:
        self.folder = RunFolder(self.folder.path, self.global_rank)
        if self.is_timed and self.cfg.latency.questions and not self.global_rank:
            self._measure_latency()
        reset_peak_memory(self.device)
        self.since = time.perf_counter()

    def _measure_latency(self) -> None:
        """Measures the latency of the pruned model and of the full one, where an earlier process has not."""
        if not (self.folder.path / LATENCY).exists():
            measured = measure_latency(
                self.components,
                **self.cfg.latency,
                device=self.device,
                options=self.options,
                generation=self.generation,
            )
            self.folder.write_json(LATENCY, measured)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        rows = self._answer_within_memory(batch) if batch.samples else []
        now = time.perf_counter()
        for row in rows:
            if row.answer is not None and self.components.session is None:  # else much of the work was done before
                row.seconds = (now - self.since) / len(rows)
        self.since = now
        self.folder.append([*batch.failures, *rows])

    def on_test_end(self) -> None:
        self.peak_mb = peak_memory_mb(self.device)
        self.trainer.strategy.barrier("all rows are written")

    def _answer_within_memory(self, batch: Batch) -> list[Prediction]:
        """Answers a batch, with `batch_size=auto` in smaller parts where there is no memory for all of it at once.

        Raises:
            InputError: there is too little memory, also for a question alone.
        """
        size = len(batch.samples)
        if size <= self.most:
            try:
                return self.answer(batch)
            except (RuntimeError, MemoryError) as error:
                if not (isinstance(error, MemoryError) or is_oom_error(error)):
                    raise
                if self.cfg.batch_size != AUTO or size == 1:
                    raise InputError(too_large(size)) from error
            garbage_collection_cuda()
            self.most = size // 2
            log.warning("no memory for %d questions at once: going on with batches of %d", size, self.most)
        parts = self.data.divided([sample.id for sample in batch.samples], self.most)
        return [row for part in parts for row in self._answer_within_memory(part.to(self.device))]

    def answer(self, batch: Batch) -> list[Prediction]:
        """Answers a batch of samples from pruned prompts; returns their rows."""
        with self.reading(batch) as (prompts, trace, hooks):
            answers = self.components.adapter.generate(prompts, hooks, **self.generation)
        return self.rows(batch, trace, answers)

    @contextmanager
    def reading(
        self, batch: Batch, until: int | None = None, seen: list[Tensor] | None = None
    ) -> Iterator[tuple[Prompts, Trace, FrameHooks | None]]:
        """Prunes a batch's prompts inside this context, reading once what the questions of a frame have in common.

        Args:
            batch: the batch.
            until: decoder layer at which reading may stop; None to read whole prompts.
            seen: takes the states that were about to enter that layer.

        Yields:
            The prompts, the trace of what is kept of them, and what was read of them; None where nothing was.
        """
        adapter, prompts, session = self.components.adapter, batch.inputs, self.components.session
        if prompts.frames is None or (session is None and len(prompts.frames.lengths) == len(prompts.lengths)):
            with prune(*self.pruned, **self.prune_options(batch)) as trace:
                yield prompts.with_images, trace, None
            return
        start = prompts.beginnings(adapter.pad)

        def read(with_images: bool, **options: Any) -> None:
            with nullcontext() if until is None else stop_at(adapter.model, until, seen):
                adapter.prefill(start if with_images else start.without_images(), **options)

        firsts = [batch.samples[prompts.frame_of.index(frame)] for frame in range(len(start.lengths))]
        names = [sample.frame or sample.id for sample in firsts]
        frames = Frames(names, start.own_ids, start.token_maps, prompts.frame_of, prompts.behind(start), read)
        memory = session.memory(adapter) if session else None
        repeats = max(self.generation.get(name) or 1 for name in ("num_beams", "num_return_sequences"))
        options = self.prune_options(batch)
        with prune_frames(frames, *self.pruned, repeats=repeats, memory=memory, **options) as hooks:
            yield prompts, hooks.trace, hooks
        if session and memory and memory.knows(frames, self.components.pruner):
            session.keep(self.components.pruner, batch)

    @property
    def pruned(self) -> tuple[Any, Pruner, RatioPolicy]:
        """The positional arguments of `prune`."""
        return self.components.adapter.model, self.components.pruner, self.components.policy

    def prune_options(self, batch: Batch) -> dict[str, Any]:
        """Returns the keyword arguments of `prune` for a batch's prompts."""
        return {
            "token_map": batch.inputs.token_maps,
            "sample_ids": [sample.id for sample in batch.samples],
            "questions": [sample.question for sample in batch.samples],
            **self.options,
        }

    def rows(self, batch: Batch, trace: Trace, answers: Sequence[Answer] = ()) -> list[Prediction]:
        """Returns a batch's rows: what was kept of each sample, its costs, and its answer.

        Args:
            batch: the batch.
            trace: what pruning did to it.
            answers: one answer a sample; none where nothing was generated.
        """
        predictions, vision_flops = [], self.vision_flops(batch)
        counted: dict[tuple[str | None, int], list[ObjectCount]] = {}  # questions of a frame share what is kept
        for row, sample in enumerate(batch.samples):
            at = row * len(trace.kept) // len(batch.samples)  # beams repeat each prompt in place
            flops = {"selection": trace.select_flops[at]} | vision_flops
            shared = sample.frame, id(trace.kept[at])
            if shared not in counted:
                counted[shared] = count_covered_objects(sample, trace.token_maps[at], trace.kept[at])
            text = batch.inputs.lengths[row] - trace.full_tokens[at]
            prediction = Prediction.of(
                sample, text_tokens=text, flops=flops, objects=counted[shared], **_kept(trace, at)
            )
            if answers:
                prediction.answer, prediction.new_tokens = answers[row].text, answers[row].new_tokens
            predictions.append(prediction)
        self._record(batch, trace)
        return predictions

    def vision_flops(self, batch: Batch) -> dict[str, int]:
        """Counts the FLOPs of encoding one sample's images.

        Empty for towers that cannot be counted without pixels, and where the images are made smaller on the way.
        """
        session = self.components.session
        if session is None:
            return self._vision_flops(batch)
        if ids_of(batch) not in session.vision_flops:  # batches without images no longer tell
            session.vision_flops[ids_of(batch)] = self._vision_flops(batch)
        return session.vision_flops[ids_of(batch)]

    def _vision_flops(self, batch: Batch) -> dict[str, int]:
        if self.count_vision is None or self.components.pruner.traits.resizes_images:
            return {}
        try:
            images = batch.inputs.with_images
            return {"vision": self.count_vision(images.inputs) // len(images.lengths)}
        except InputError as error:
            log.warning("flops/vision is left out: %s", error)
            self.count_vision = None
            return {}

    def _record(self, batch: Batch, trace: Trace) -> None:
        """Records the kept tokens of the first samples and, on the first rank, draws some."""
        start = time.perf_counter()
        at = [row * len(trace.kept) // len(batch.samples) for row in range(len(batch.samples))]
        if self.explored and (recorded := batch.samples[: max(0, self.selections.left)]):
            self.selections.append(
                [
                    selection_of(sample, trace.token_maps[row], trace.picked[row])
                    for sample, row in zip(recorded, at, strict=False)
                ]
            )
        for sample, row in zip(batch.samples[: 0 if self.global_rank else self.pictures], at, strict=False):
            if sample.has_images:
                save_picture(self.folder.path, sample, sample.images, trace.token_maps[row], trace.kept[row])
                self.pictures -= 1
        self.since += time.perf_counter() - start  # neither is what a question takes


def too_large(size: int) -> str:
    """Says what to do where a batch finds no memory."""
    if size == 1:
        return "no memory for a single question: use a smaller model or model.dtype, or a device with more memory"
    return f"no memory for {size} questions at once: set batch_size={size // 2}, or batch_size=auto, which finds out"


def _kept(trace: Trace, at: int) -> dict[str, Any]:
    """Returns the fields of a prediction that say what was kept of a batch row."""
    token_map = trace.token_maps[at]
    return {
        "full_counts": token_map.counts,
        "kept_counts": {camera: len(kept) for camera, kept in trace.kept[at].items()},
        "kept": {camera: pack_indices(kept, token_map.counts[camera]) for camera, kept in trace.kept[at].items()},
        "stages": trace.stages[at],
        "nominal": trace.nominal_tokens[at],
        "raw": trace.raw_tokens[at] if trace.raw_tokens else None,
    }
