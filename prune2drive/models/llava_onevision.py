"""The LLaVA-OneVision family: SigLIP, a projector, and a Qwen2 or Llama decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from prune2drive.models.conversion import Original
from prune2drive.models.pretrained import Pretrained, without_video

ImageProcessor = without_video(LlavaOnevisionProcessor)


class LlavaOnevision(Pretrained):
    """LLaVA-OneVision, or a checkpoint in LLaVA-NeXT's format, such as DriveMM; images are padded to squares.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub.
        vision_config: fields of `SiglipVisionConfig`, for an unknown vision tower in LLaVA-NeXT's format.
        **options: options of `Pretrained`.
    """

    families = ("llava_onevision",)
    model_class = LlavaOnevisionForConditionalGeneration
    image_processor_class = LlavaOnevisionImageProcessorPil

    def __init__(self, checkpoint: str, vision_config: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.vision_config = dict(vision_config) if vision_config else None
        super().__init__(checkpoint, **options)

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
