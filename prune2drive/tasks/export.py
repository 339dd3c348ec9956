"""Writes pruned prompts for a server that takes embeddings, such as vLLM: `python run.py task=export`.

A method that cuts before the LLM changes nothing but what the decoder's first layer is given, so any server that reads
embeddings answers as the pruned model does. Vision runs, the decoder does not unless answers are wanted too.

Shape suffixes: F frames, P prompt positions (padded), T positions of the pruned prompt, D channels.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from prune2drive.data.datamodule import Batch
from prune2drive.errors import InputError
from prune2drive.families import decoder_of
from prune2drive.models.decoder_checkpoint import check_decoder_alone, save_decoder
from prune2drive.pruning import Pruner
from prune2drive.pruning.reuse.frames import FrameHooks
from prune2drive.pruning.surgery.early_exit import stop_at
from prune2drive.results.exported_prompts import ExportedPrompts
from prune2drive.results.run_folder import RunFolder
from prune2drive.sample import Prediction
from prune2drive.tasks import evaluate
from prune2drive.tasks.components import Components, check_settings, refuse_options
from prune2drive.tasks.evaluation_run import Task
from prune2drive.tasks.loop import Evaluation

DECODER = "decoder"


class Export(Evaluation):
    """Writes the embeddings of every pruned prompt, and answers the question where that is wanted."""

    is_timed = False

    @cached_property
    def prompts(self) -> ExportedPrompts:
        """Where the prompts go."""
        return ExportedPrompts(self.folder.path, self.components.dataset.ids)

    def on_test_start(self) -> None:
        super().on_test_start()
        adapter, folder = self.components.adapter, Path(self.cfg.folder, DECODER)
        if self.cfg.task.decoder and not self.global_rank and not folder.exists():
            save_decoder(adapter.model, adapter.processor.tokenizer, folder)

    def answer(self, batch: Batch) -> list[Prediction]:
        adapter = self.components.adapter
        seen: list[Tensor] = []
        with self.reading(batch, until=0, seen=seen) as (prompts, trace, hooks):
            if not trace.kept:  # else reading the frames was all that was needed
                with stop_at(adapter.model, 0, seen):
                    adapter.prefill(prompts)
            kept = trace.positions[:: len(trace.positions) // len(batch.samples)]  # beams repeat each prompt in place
            embeddings = self._embeddings(seen[-1], list(map(len, kept)), hooks)
        for sample, embeddings_TD, kept_T in zip(batch.samples, embeddings, kept, strict=True):
            self.prompts.write(sample.id, embeddings_TD, kept_T)
        return super().answer(batch) if self.cfg.task.answers else self.rows(batch, trace)

    @torch.inference_mode()
    def _embeddings(self, states_FPD: Tensor, lengths: Sequence[int], hooks: FrameHooks | None) -> list[Tensor]:
        """Returns the embeddings of each pruned prompt, without padding; [T, D] each.

        Args:
            states_FPD: what entered the first layer: prompts or, where these share their frames' beginnings, those.
            lengths: T of each prompt.
            hooks: what was read of the prompts' frames; None where nothing was.
        """
        if hooks is None or not hooks.is_begun:
            return [states_PD[-length:] for states_PD, length in zip(states_FPD, lengths, strict=True)]
        embed, frames = self.components.adapter.model.get_input_embeddings(), hooks.frames
        return [
            torch.cat([states_FPD[of, len(ids) - length :], embed(ids.to(states_FPD.device))])
            for of, ids, length in zip(frames.frame_of, frames.texts, lengths, strict=True)
        ]


def run(cfg: DictConfig) -> float:
    """Exports the prompts of one configuration and leaves its run folder.

    Returns:
        With `task.answers` the dataset's headline score, else the mean number of kept visual tokens.

    Raises:
        InputError: bad input, or prompts that such a server cannot be given, before the model is loaded.
    """
    return evaluate.run_task(cfg, *prepare(cfg))


def prepare(cfg: DictConfig) -> tuple[Task, Components]:
    """Returns the task and what its configuration names; no weights are loaded.

    Raises:
        InputError: bad input, or prompts that a server of embeddings cannot be given.
    """
    refuse_options(cfg, "task=export", ("shard",))
    if cfg.submission:
        raise InputError("submission: task=export writes prompts for a server; leave it out")
    if cfg.task.answers:
        task, components = evaluate.prepare(cfg)
    else:
        check_settings(cfg)
        task, components = WITHOUT_ANSWERS, Components.build(cfg)
    config = components.adapter.text_config
    check_expressible(components.pruner, cfg.positions, config)
    if cfg.task.decoder:
        check_decoder_alone(config)
    return replace(task, loop=Export, done="exported", leave=_write_manifest), components


def check_expressible(pruner: Pruner, positions: str | None, config: Any) -> None:
    """Refuses what a server cannot do that is given embeddings alone, numbers them from 0 and runs the whole decoder.

    Args:
        pruner: the method, resolved.
        positions: `keep`, `renumber` or None for the method's own.
        config: the decoder's.

    Raises:
        InputError: pruning inside the LLM, kept or three-axis positions, or features that enter later layers.
    """
    decoder, name, says = decoder_of(config), type(pruner).__name__, positions or pruner.traits.positions
    numbers = "a server numbers embeddings 0, 1, 2, ..."
    if decoder.rope_axes > 1:
        raise InputError(
            f"task=export: {config.model_type} has positions on {decoder.rope_axes} axes, and {numbers}; choose a "
            "model whose positions have one"
        )
    if decoder.adds_features:
        raise InputError(
            f"task=export: {config.model_type} adds vision features to later layers, which embeddings cannot hold; "
            "choose another model"
        )
    if deeper := [str(cut) for cut in pruner.cuts if cut]:
        raise InputError(
            f"task=export: {name} prunes inside the LLM, at layer {', '.join(deeper)}, and a server runs it whole; set "
            "pruner.layer=0, or choose a method that cuts before the LLM, such as divprune"
        )
    if pruner.traits.proportional_attention:
        raise InputError(
            f"task=export: {name} weighs attention by the tokens that a slot stands for, and a server does not; choose "
            "another method"
        )
    if pruner.cuts and says != "renumber":
        raise InputError(
            f"task=export: {name} with positions={says} leaves gaps between positions, and {numbers}; set "
            "positions=renumber"
        )


def _write_manifest(components: Components, folder: RunFolder, rows: Collection[Prediction]) -> None:
    ExportedPrompts(folder.path, components.dataset.ids).write_manifest(rows)


WITHOUT_ANSWERS = Task(
    loop=Export,
    measure=lambda components, predictions: {},
    headline="tokens/visual_kept",
    caveat=lambda components, metrics: "",
    done="exported",
)
