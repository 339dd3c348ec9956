"""Trains the network of `pruner=learned` on a frozen model's visual tokens: `python run.py task=train_scorer`.

Shape suffixes: C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.classification import BinaryAUROC

from prune2drive.data.datamodule import Batch
from prune2drive.data.dataset import Dataset, group_by_frame
from prune2drive.data.view import DatasetView
from prune2drive.errors import InputError, check_whole
from prune2drive.models.adapter import Adapter
from prune2drive.pruning import Context, Pool, Pruner, Traits, prune
from prune2drive.pruning.surgery.early_exit import stop_at
from prune2drive.pruning.token_scorer import TokenScorer, shows_object
from prune2drive.sample import Sample


@dataclass
class _Recorder(Pruner):
    """Keeps what a method would be given to select from."""

    seen: list[tuple[Tensor, Sequence[Pool]]] = field(default_factory=list)

    traits = Traits()

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        self.seen.append((tokens_CND, ctx.pools))
        return torch.arange(k, device=tokens_CND.device).expand(len(tokens_CND), k)


class ScorerTraining(LightningModule):
    """Trains a network to tell which tokens show an annotated object; a `prune2drive.tasks.train.Trainable`.

    Args:
        adapter: the model, which is not trained.
        dataset: questions with annotated objects; one question of each frame is used.
        layer: decoder layer at whose input tokens are scored.
        hidden: hidden units of the network.
        steps: number of optimizer steps.
        frames: number of frames of a step, over all ranks.
        rate: learning rate at the start; it falls to zero.
        held_out: share of the frames, the last ones, to validate on.
        seed: seed of the frames' order.

    Raises:
        InputError: a setting that cannot be, or too few frames.
    """

    def __init__(
        self,
        adapter: Adapter,
        dataset: Dataset,
        layer: int = 1,
        hidden: int = 128,
        steps: int = 1000,
        frames: int = 4,
        rate: float = 1e-3,
        held_out: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("hidden", hidden), ("steps", steps), ("frames", frames)):
            check_whole(f"task.module.{name}", value)
        self.adapter, self.steps, self.frames, self.rate, self.seed = adapter, steps, frames, rate, seed
        self.recorder = _Recorder(layer)
        self.recorder.resolve(adapter.text_config.num_hidden_layers)
        firsts = [first for first, *_ in group_by_frame(dataset, range(len(dataset)))]
        cut = len(firsts) - round(held_out * len(firsts))
        self.train_frames, self.val_frames = (DatasetView(dataset, part) for part in (firsts[:cut], firsts[cut:]))
        if not len(self.train_frames) or not len(self.val_frames):
            raise InputError(f"dataset: {len(firsts)} frames are too few to train on and to hold out {held_out} of")
        self.scorer = TokenScorer(adapter.text_config.hidden_size, hidden)
        self.auroc = BinaryAUROC(thresholds=1000)

    def save(self, file: Path) -> None:
        """Writes the network's weights, for `pruner.file`."""
        file.parent.mkdir(parents=True, exist_ok=True)
        text = self.adapter.text_config
        about = {"channels": text.hidden_size, "depth": text.num_hidden_layers, "frames": len(self.train_frames)}
        self.scorer.write(file, {"layer": self.recorder.layer, **about})

    def on_fit_start(self) -> None:
        self.adapter.model.to(self.device)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Returns the cross entropy, in which tokens with and without objects weigh alike."""
        tokens_MD, labels_M = self.tokens(batch)
        share = labels_M.mean().clamp(1e-3, 1 - 1e-3)
        weight_M = torch.where(labels_M > 0, 0.5 / share, 0.5 / (1 - share))
        loss = F.binary_cross_entropy_with_logits(self.scorer(tokens_MD), labels_M, weight_M)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.samples))
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Updates the area under the curve of true and false positives."""
        tokens_MD, labels_M = self.tokens(batch)
        self.auroc.update(self.scorer(tokens_MD).sigmoid(), labels_M.int())
        self.log("val/auroc", self.auroc, prog_bar=True, batch_size=len(batch.samples))

    @torch.no_grad()
    def tokens(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the visual tokens of frames at the layer [M, D], and 1 where they show an object, else 0; [M]."""
        model, prompts, layer = self.adapter.model, batch.inputs, self.recorder.layer
        self.recorder.seen.clear()
        with prune(model, self.recorder, keep=0.5, token_map=prompts.token_maps), stop_at(model, layer):
            self.adapter.prefill(prompts)
        tokens = [tokens_CND.flatten(0, 1).float() for tokens_CND, _ in self.recorder.seen]
        labels = [_labels(batch.samples[pool.row], pool) for _, pools in self.recorder.seen for pool in pools]
        return torch.cat(tokens), torch.cat(labels).to(tokens[0])

    def configure_optimizers(self) -> Any:
        """Returns Adam for the network alone, with a learning rate that falls to zero along a cosine."""
        optimizer = torch.optim.Adam(self.scorer.parameters(), self.rate)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Returns the frames of the remaining steps, each epoch in an order of its own."""
        count, rank, world = len(self.train_frames), self.trainer.global_rank, self.trainer.world_size
        order = torch.cat([self._order(epoch, count) for epoch in range(-(-self.steps * self.frames // count))])
        steps = order[: self.steps * self.frames].view(self.steps, self.frames)[self.global_step :, rank::world]
        return self._loader(self.train_frames, batch_sampler=steps.tolist())

    def _loader(self, frames: Any, **options: Any) -> DataLoader[Batch]:
        return DataLoader(frames, collate_fn=self._collate, **options)

    def _collate(self, samples: list[Sample]) -> Batch:
        return Batch(samples, inputs=self.adapter.collate(samples))

    def _order(self, epoch: int, count: int) -> Tensor:
        return torch.randperm(count, generator=torch.Generator().manual_seed(self.seed * 10_007 + epoch))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Returns this rank's share of the frames held out."""
        places = range(self.trainer.global_rank, len(self.val_frames), self.trainer.world_size)
        return self._loader(self.val_frames, batch_size=self.frames, sampler=places)


def _labels(sample: Sample, pool: Pool) -> Tensor:
    """Returns which tokens of a camera's pool show an object; bool [N]."""
    (camera,) = pool.cameras
    boxes = [thing.box for thing in sample.objects if thing.camera == camera]
    if not boxes:
        return torch.zeros(len(pool.of_N), dtype=torch.bool)
    boxes_O4 = torch.tensor(boxes) / torch.tensor(sample.image_sizes[camera] * 2)
    return shows_object(pool.token_map.boxes(camera), boxes_O4)
