"""The LLaVA-OneVision family: SigLIP, a projector, and a Qwen2 or Llama decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from prune2drive.errors import InputError, check_whole
from prune2drive.models.conversion import Original
from prune2drive.models.pretrained import Pretrained, without_video

ImageProcessor = without_video(LlavaOnevisionProcessor)


class LlavaOnevision(Pretrained):
    """LLaVA-OneVision, or a checkpoint in LLaVA-NeXT's format, such as DriveMM; images are padded to squares.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub.
        vision_config: fields of `SiglipVisionConfig`, for an unknown vision tower in LLaVA-NeXT's format.
        resolution: width and height in pixels that images are brought to, with as many tokens as that has patches; the
            checkpoint's by default. The vision tower's position embeddings are interpolated.
        **options: options of `Pretrained`.

    Raises:
        InputError: the resolution is no multiple of the patch size.
    """

    families = ("llava_onevision",)
    model_class = LlavaOnevisionForConditionalGeneration
    image_processor_class = LlavaOnevisionImageProcessorPil

    def __init__(
        self,
        checkpoint: str,
        vision_config: Mapping[str, Any] | None = None,
        resolution: int | None = None,
        **options: Any,
    ) -> None:
        self.vision_config = dict(vision_config) if vision_config else None
        super().__init__(checkpoint, **options)
        self.resolution = resolution
        if resolution is not None:
            patch = self.config.vision_config.patch_size
            check_whole("model.resolution", resolution, patch)
            if resolution % patch:
                raise InputError(f"model.resolution={resolution}: use a multiple of the patch size, {patch}")
            self.config.vision_config.image_size = resolution
            self.config.image_grid_pinpoints = [[resolution, resolution]]
            images = self.processor.image_processor
            images.size = {"height": resolution, "width": resolution}
            images.image_grid_pinpoints = [[resolution, resolution]]
            self.processor.num_image_tokens = (resolution // patch) ** 2

    def load(self) -> Any:
        model = super().load()
        if self.resolution is not None:
            resize_positions(model, self.resolution)
        return model

    def open_original(self, reader: Any, folder: Path) -> Original:
        return reader(folder, self.vision_config)

    @classmethod
    def build_processor(cls, config: Any, image_processor: Any, tokenizer: Any, chat_template: str) -> Any:
        vision = config.vision_config
        return ImageProcessor(
            image_processor,
            tokenizer,
            num_image_tokens=(vision.image_size // vision.patch_size) ** 2,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            vision_aspect_ratio=config.vision_aspect_ratio,
            image_token=tokenizer.convert_ids_to_tokens(config.image_token_id),
            chat_template=chat_template,
        )


@torch.no_grad()
def resize_positions(model: Any, resolution: int) -> None:
    """Interpolates the position embeddings of a model's SigLIP tower, as the tower itself would at each call.

    Args:
        model: a LLaVA-OneVision; it is changed in place.
        resolution: width and height of its images from now on, in pixels.
    """
    embeddings = model.base_model.vision_tower.embeddings
    before, side = embeddings.position_embedding, resolution // embeddings.patch_size
    old = round(before.num_embeddings**0.5)
    grid = before.weight.T.reshape(1, -1, old, old).float()
    weights = nn.functional.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    after = nn.Embedding(side * side, before.embedding_dim, device=before.weight.device, dtype=before.weight.dtype)
    after.weight.copy_(weights.flatten(2)[0].T)
    embeddings.position_embedding = after
    embeddings.image_size, embeddings.num_patches, embeddings.num_positions = resolution, side**2, side**2
    positions = torch.arange(side**2, device=before.weight.device)[None]
    embeddings.register_buffer("position_ids", positions, persistent=False)
    model.config.vision_config.image_size = resolution
    model.config.image_grid_pinpoints = [[resolution, resolution]]
