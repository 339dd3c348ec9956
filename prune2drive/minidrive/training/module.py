"""MiniDrive's training: the model with its losses and its schedule.

Three stretches of one run. Naming: every visual token learns to name, in the words of the vocabulary, what it
shows. Learning: answers are learned from these tokens, frozen, with guidance to what decides them. Settling: all
weights learn from answers alone. No loss knows that tokens will be pruned.

Shape suffixes: S scenes, C cameras, N tokens of a camera, T positions, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from prune2drive.cameras import CAMERAS
from prune2drive.minidrive.architecture import Architecture, build_model
from prune2drive.minidrive.questions import KINDS_ASKED
from prune2drive.minidrive.tokenizer import build_tokenizer
from prune2drive.minidrive.training.batches import IGNORED, NAMES, PREFIX, Batch, PackedMiniDrive, Recipe, block_mask
from prune2drive.minidrive.training.losses import gaze_loss, naming_losses
from prune2drive.minidrive.training.packed_attention import PACKED, Watch
from prune2drive.minidrive.training.schedule import Schedule

# A question's own words are put together below this layer, what they ask for is found in it, and is named behind it.
# Attention-ranked pruning that reads this layer or a later one would profit from `gaze`; FastV's usual ones are below.
GAZE_LAYER = 2


class MiniDriveTraining(LightningModule):
    """The model with its losses and its schedule."""

    def __init__(self, sizes: Architecture, schedule: Schedule, recipe: Recipe, validation_scenes: int) -> None:
        super().__init__()
        self.sizes, self.schedule, self.recipe = sizes, schedule, recipe
        self.validation_scenes = validation_scenes
        self.model = build_model(sizes)
        self.model.set_attn_implementation({"text_config": PACKED})
        self.tokenizer = build_tokenizer()
        self.names = {g: torch.tensor(self.tokenizer.convert_tokens_to_ids(list(words))) for g, words in NAMES.items()}

    def training_step(self, batch: Batch, _: int) -> Tensor:
        stretch = self.schedule.stretch(self.global_step)
        with torch.set_grad_enabled(stretch != "learning"):
            images = self.see(batch["pixels_SC3HW"])
        if stretch == "naming":
            tokens = torch.stack(list(images.pooler_output))[:, :-1]  # without the newline
            return self.naming_loss("patch", tokens, batch["names_IN"])
        watch = Watch(GAZE_LAYER) if stretch == "learning" else None
        seen = self.read(batch, images, watch)
        wanted = batch["labels_ST"] != IGNORED
        labels = batch["labels_ST"][wanted]
        logits = self.model.lm_head(seen.last_hidden_state[wanted]).float()
        loss = F.cross_entropy(logits, labels)
        self.log("train/answers", loss, prog_bar=True)
        self.log("train/token_accuracy", (logits.argmax(-1) == labels).float().mean(), prog_bar=True)
        return loss + self.guidance(batch, seen, watch) if watch else loss

    def guidance(self, batch: Batch, seen: Any, watch: Watch) -> Tensor:
        """What helps answers begin: naming what is asked and what decides the answer, and looking at that."""
        clues, weights = batch["clues"], self.schedule.guidance
        scene, place = clues["at"]
        prefix = batch["ids_ST"][0, : self._prefix(batch)]
        images = (prefix == self.model.config.image_token_id).nonzero().view(len(CAMERAS), -1)
        gaze = gaze_loss(watch, clues["at"], clues["on"], images[:, :-1].flatten())  # without the newlines
        self.log("train/gaze", gaze)
        loss = weights["gaze"] * gaze
        for what, layer in (("asked", GAZE_LAYER), ("subject", GAZE_LAYER + 1)):
            loss = loss + weights[what] * self.naming_loss(what, seen.hidden_states[layer][scene, place], clues[what])
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Exact match of each kind of question; an answer that is right at every token is what greedy decoding says."""
        hidden_STD = self.read(batch, self.see(batch["pixels_SC3HW"])).last_hidden_state
        right_ST = (self.model.lm_head(hidden_STD).argmax(-1) == batch["labels_ST"]) | (batch["labels_ST"] == IGNORED)
        matches = []
        for segment, kind in enumerate(KINDS_ASKED):
            matches.append((right_ST | (batch["segment_ST"] != segment)).all(1).float().mean())
            self.log(f"val/{kind}", matches[-1], sync_dist=True)
        self.log("val/exact_match", torch.stack(matches).mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        core, decay = self.model.model, self.schedule.weight_decay
        vision = [*core.vision_tower.parameters(), *core.multi_modal_projector.parameters()]
        language = [p for p in self.parameters() if all(p is not q for q in vision)]
        groups: list[dict[str, Any]] = []
        factors: list[Any] = []
        for weights, factor in ((language, self.schedule.factor), (vision, self.schedule.vision_factor)):
            groups.append({"params": [p for p in weights if p.ndim > 1], "weight_decay": decay})
            groups.append({"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0})
            factors += [factor, factor]
        optimizer = torch.optim.AdamW(groups, lr=self.schedule.rate, betas=(0.9, 0.98))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factors)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def train_dataloader(self) -> DataLoader[Batch]:
        recipes = {stretch: replace(self.recipe, scenes=scenes) for stretch, scenes in self.schedule.scenes.items()}
        recipes["naming"] = replace(recipes["naming"], questions=0)
        steps = range(self.schedule.steps)
        return self._loader(lambda: ((at, recipes[self.schedule.stretch(at)]) for at in steps[self.global_step :]))

    def val_dataloader(self) -> DataLoader[Batch]:
        recipe = replace(self.recipe, split="val", difficulties={"standard": 1.0}, scenes=8, seed=0)
        return self._loader(lambda: ((step, recipe) for step in range(self.validation_scenes // recipe.scenes)))

    def _loader(self, plan: Callable[[], Iterable[tuple[int, Recipe]]]) -> DataLoader[Batch]:
        rank, world = self.trainer.global_rank, self.trainer.world_size
        return DataLoader(PackedMiniDrive(plan, self.tokenizer, rank, world), batch_size=None)

    def see(self, pixels_SC3HW: Tensor) -> Any:
        """The model's image features: `pooler_output` holds [N + 1, D] an image, a newline last."""
        scenes, cameras, _, height, width = pixels_SC3HW.shape
        pixels = (pixels_SC3HW.float() / 127.5 - 1).flatten(0, 1)[:, None]
        return self.model.model.get_image_features(
            pixel_values=pixels.to(self.model.dtype),
            image_sizes=torch.tensor([[height, width]]).expand(scenes * cameras, 2),
            batch_num_images=torch.tensor([cameras] * scenes),
            return_dict=True,
        )

    def read(self, batch: Batch, images: Any, watch: Watch | None = None) -> Any:
        """The model's outputs for packed questions about images it has seen."""
        return self.model.model(
            input_ids=batch["ids_ST"],
            position_ids=batch["position_ST"],
            attention_mask=self._mask(batch["segment_ST"], self._prefix(batch)),
            mm_encoder_outputs={"image": images},
            use_cache=False,
            output_hidden_states=True,
            watch=watch,
        )

    def naming_loss(self, what: str, vectors: Tensor, names: Mapping[str, Tensor]) -> Tensor:
        """Cross entropy of the names of each vector [..., D], read off by the output embedding; mean over groups."""
        words = {group: self.model.lm_head.weight[ids.to(vectors.device)] for group, ids in self.names.items()}
        losses = naming_losses(vectors, names, words)
        self.log_dict({f"train/{what}_{group}": loss for group, loss in losses.items()})
        return torch.stack(list(losses.values())).mean()

    @staticmethod
    def _prefix(batch: Batch) -> int:
        """Positions before the questions."""
        return int((batch["segment_ST"][0] == PREFIX).sum())

    def _mask(self, segment_ST: Tensor, prefix: int) -> Tensor:
        device = segment_ST.device
        mixed = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if mixed else self.model.dtype
        blocked = ~block_mask(segment_ST, prefix)
        return torch.zeros(blocked.shape, dtype=dtype, device=device).masked_fill_(blocked, torch.finfo(dtype).min)
