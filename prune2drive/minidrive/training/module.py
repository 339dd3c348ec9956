"""The training of MiniDrive's model, in three phases of one run (`Schedule`); no loss knows that tokens will be pruned.

Shape suffixes: S scenes, H height, W width, N tokens of a camera, T positions, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from prune2drive.errors import InputError, check_choice
from prune2drive.minidrive.architecture import Architecture, build_model, save
from prune2drive.minidrive.model import packaged
from prune2drive.minidrive.questions import VERSIONS
from prune2drive.minidrive.tokenizer import build_tokenizer
from prune2drive.minidrive.training.batches import PREFIX, Batch, PackedMiniDrive, block_mask
from prune2drive.minidrive.training.growth import grow
from prune2drive.minidrive.training.losses import attention_supervision_loss, attribute_losses
from prune2drive.minidrive.training.packed_attention import AttentionProbe, use_packed_attention
from prune2drive.minidrive.training.recipe import Recipe
from prune2drive.minidrive.training.schedule import Schedule
from prune2drive.minidrive.training.targets import ATTRIBUTES, CHANGES, IGNORED

LEAST_LAYERS = 3


class MiniDriveTraining(LightningModule):
    """Trains MiniDrive's model.

    Args:
        sizes: sizes of the model.
        schedule: lengths and learning rates of the phases.
        recipe: describes the training batches; the schedule sets their number of scenes.
        validation_scenes: number of scenes of the val split to validate on.
        start: version of a packaged model, or folder of a trained one, with as many decoder layers or fewer, see
            `grow`; random weights by default.
        workers: number of processes that draw batches; by default the training process does.

    Raises:
        InputError: the decoder has too few layers for attention supervision, or `start` is no version or does not fit
            the sizes.
    """

    def __init__(
        self,
        sizes: Architecture,
        schedule: Schedule,
        recipe: Recipe,
        validation_scenes: int,
        start: int | str | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if sizes.layers < LEAST_LAYERS:
            raise InputError(f"task.model.layers={sizes.layers}: use at least {LEAST_LAYERS} decoder layers")
        # The layers below combine a question's words, this one attends to the objects they name, and the next has the
        # answer. Attention supervision helps methods that rank tokens by the attention of this layer or a later one.
        self.probed_layer = sizes.layers // 2
        self.sizes, self.schedule, self.recipe = sizes, schedule, recipe
        self.validation_scenes, self.workers = validation_scenes, workers
        self.model = build_model(sizes)
        if isinstance(start, int):
            check_choice("task.start", start, VERSIONS)
        if start:
            grow(self.model, packaged(start) if isinstance(start, int) else Path(start))
        use_packed_attention(self.model)
        self.tokenizer = build_tokenizer()
        ids = self.tokenizer.convert_tokens_to_ids
        self.words = {
            name: torch.tensor(ids(list(words))) for name, words in (ATTRIBUTES | {"change": CHANGES}).items()
        }

    @property
    def steps(self) -> int:
        """Number of optimizer steps to train for."""
        return self.schedule.steps

    def save(self, folder: Path) -> None:
        """Writes the model with its tokenizer and processor, for `model.checkpoint`."""
        save(self.model, self.sizes, folder)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Returns the loss of a step, which depends on the phase."""
        phase, of_clips = self.schedule.phase(self.global_step), self.recipe.times > 1
        learns_to_see = phase == "token_supervision" and not of_clips
        with torch.set_grad_enabled(learns_to_see or phase == "fine_tuning"):
            images = self.encode_images(batch["pixels_SC3HW"])
        if learns_to_see:
            tokens = torch.stack(list(images.pooler_output))[:, :-1]  # without the newline
            return self.attribute_loss("patch", tokens, batch["attributes_IN"])
        if phase == "fine_tuning":
            return self.answer_loss(batch, self.decode(batch, images))
        probe, track = AttentionProbe(self.probed_layer), AttentionProbe(self.probed_layer // 2)
        outputs = self.decode(batch, images, probe, *([track] if of_clips else []))
        loss = self.change_loss(batch, outputs, track) if of_clips else torch.zeros(())
        if phase == "token_supervision":
            return loss
        return self.answer_loss(batch, outputs) + self.auxiliary_loss(batch, outputs, probe) + loss

    def answer_loss(self, batch: Batch, outputs: Any) -> Tensor:
        """Returns the cross entropy of the answers' tokens."""
        counted = batch["labels_ST"] != IGNORED
        labels = batch["labels_ST"][counted]
        logits = self.model.lm_head(outputs.last_hidden_state[counted]).float()
        loss = F.cross_entropy(logits, labels)
        self.log("train/answers", loss, prog_bar=True)
        self.log("train/token_accuracy", (logits.argmax(-1) == labels).float().mean(), prog_bar=True)
        return loss

    def auxiliary_loss(self, batch: Batch, outputs: Any, probe: AttentionProbe) -> Tensor:
        """Returns the weighted sum of the losses beside the answers'."""
        targets, weights = batch["targets"], self.schedule.auxiliary_losses
        attention = attention_supervision_loss(probe, targets["answer_start"], targets["evidence"], self._visual(batch))
        self.log("train/attention_supervision", attention)
        loss = weights["attention_supervision"] * attention
        scene, start = targets["answer_start"]
        for name, layer in (("asked", self.probed_layer), ("subject", self.probed_layer + 1)):
            vectors = outputs.hidden_states[layer][scene, start]
            loss = loss + weights[name] * self.attribute_loss(name, vectors, targets[name])
        return loss

    def change_loss(self, batch: Batch, outputs: Any, track: AttentionProbe) -> Tensor:
        """Returns the weighted sum of the losses that teach visual tokens of a clip's last images what has changed."""
        visual, weights = self._visual(batch), self.schedule.auxiliary_losses
        vectors = outputs.hidden_states[self.probed_layer][:, visual]
        loss = self.attribute_loss("token", vectors, {"change": batch["change"].view(vectors.shape[:-1])})
        (scene, token), evidence = batch["first_sight"]
        attention = attention_supervision_loss(track, torch.stack([scene, visual[token]]), evidence, visual)
        self.log("train/track", attention)
        return weights["change"] * loss + weights["track"] * attention

    def attribute_loss(self, what: str, vectors: Tensor, targets: Mapping[str, Tensor]) -> Tensor:
        """Returns the mean over attributes of the cross entropy of classifying vectors by the output embedding.

        Args:
            what: what the vectors stand for, for the names of the logged curves.
            vectors: hidden states [..., D].
            targets: attribute -> index of the right word for each vector, or IGNORED.
        """
        words = {name: self.model.lm_head.weight[self.words[name].to(vectors.device)] for name in targets}
        losses = attribute_losses(vectors, targets, words)
        self.log_dict({f"train/{what}_{name}": loss for name, loss in losses.items()})
        return torch.stack(list(losses.values())).mean()

    def validation_step(self, batch: Batch, _: int) -> None:
        """Logs the exact match of each kind that is asked for, as greedy decoding would score it.

        Greedy decoding gives the reference exactly where the most likely token is right at every position of it.
        """
        hidden_STD = self.decode(batch, self.encode_images(batch["pixels_SC3HW"])).last_hidden_state
        right_ST = (self.model.lm_head(hidden_STD).argmax(-1) == batch["labels_ST"]) | (batch["labels_ST"] == IGNORED)
        matches = []
        for segment, kind in enumerate(self.recipe.frame_kinds):
            matches.append((right_ST | (batch["segment_ST"] != segment)).all(1).float().mean())
            self.log(f"val/{kind}", matches[-1], sync_dist=True)
        self.log("val/exact_match", torch.stack(matches).mean(), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Returns AdamW with the schedule's learning rates; only matrices have weight decay."""
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
        """Returns the batches of the remaining steps."""
        recipes = {phase: replace(self.recipe, scenes=scenes) for phase, scenes in self.schedule.scenes.items()}
        recipes["token_supervision"] = replace(recipes["token_supervision"], questions=0)
        steps = range(self.schedule.steps)
        return self._loader(lambda: ((at, recipes[self.schedule.phase(at)]) for at in steps[self.global_step :]))

    def val_dataloader(self) -> DataLoader[Batch]:
        """Returns the batches of the first scenes of the val split."""
        recipe = replace(
            self.recipe,
            split="val",
            difficulties={"standard": 1.0},
            other_resolutions={},
            other_shapes={},
            other_views=0.0,
            spacing={"even": 1.0},
            scenes=8,
            seed=0,
        )
        return self._loader(lambda: ((step, recipe) for step in range(self.validation_scenes // recipe.scenes)))

    def _loader(self, plan: Callable[[], Iterable[tuple[int, Recipe]]]) -> DataLoader[Batch]:
        rank, world = self.trainer.global_rank, self.trainer.world_size
        dataset = PackedMiniDrive(plan, self.tokenizer, rank, world)
        return DataLoader(dataset, batch_size=None, num_workers=self.workers)

    def encode_images(self, pixels_SC3HW: Tensor) -> Any:
        """Returns the model's image features; `pooler_output` holds [N + 1, D] for an image, a newline last."""
        scenes, cameras, _, height, width = pixels_SC3HW.shape
        pixels = (pixels_SC3HW.float() / 127.5 - 1).flatten(0, 1)[:, None]
        other = {"interpolate_pos_encoding": True} if {height, width} != {self.sizes.resolution} else {}
        return self.model.model.get_image_features(
            pixel_values=pixels.to(self.model.dtype),
            image_sizes=torch.tensor([[height, width]]).expand(scenes * cameras, 2),
            batch_num_images=torch.tensor([cameras] * scenes),
            return_dict=True,
            **other,
        )

    def decode(self, batch: Batch, images: Any, *probes: AttentionProbe) -> Any:
        """Returns the model's outputs, hidden states included, for a visual prefix and packed questions.

        Args:
            batch: a batch with `ids_ST`.
            images: the result of `encode_images`.
            probes: each captures the attention of one layer.
        """
        return self.model.model(
            input_ids=batch["ids_ST"],
            position_ids=batch["position_ST"],
            attention_mask=self._additive_mask(batch["segment_ST"], _prefix_length(batch)),
            mm_encoder_outputs={"image": images},
            use_cache=False,
            output_hidden_states=True,
            probes=probes,
        )

    def _visual(self, batch: Batch) -> Tensor:
        """Returns the positions of the visual tokens."""
        prefix = batch["ids_ST"][0, : _prefix_length(batch)]
        views = batch["pixels_SC3HW"].shape[1]
        images = (prefix == self.model.config.image_token_id).nonzero().view(views, -1)
        return images[:, :-1].flatten()  # without the newlines

    def _additive_mask(self, segment_ST: Tensor, prefix: int) -> Tensor:
        device = segment_ST.device
        mixed = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if mixed else self.model.dtype
        blocked = ~block_mask(segment_ST, prefix)
        return torch.zeros(blocked.shape, dtype=dtype, device=device).masked_fill_(blocked, torch.finfo(dtype).min)


def _prefix_length(batch: Batch) -> int:
    """Returns the number of positions before the questions."""
    return int((batch["segment_ST"][0] == PREFIX).sum())
