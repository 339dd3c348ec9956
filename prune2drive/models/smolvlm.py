"""The SmolVLM family: SigLIP with pixel shuffle, a connector, and a Llama decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import ProcessorMixin, SmolVLMForConditionalGeneration, SmolVLMProcessor
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from prune2drive.families.base import ImageInfo
from prune2drive.models.pretrained import Pretrained, without_video

ImageProcessor = without_video(SmolVLMProcessor)
ImageProcessor.apply_chat_template = ProcessorMixin.apply_chat_template  # SmolVLM's own needs the video part


class SmolVLM(Pretrained):
    """SmolVLM.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub.
        split: whether to cut large images into tiles.
        **options: options of `Pretrained`.
    """

    families = ("smolvlm",)
    model_class = SmolVLMForConditionalGeneration
    image_processor_class = SmolVLMImageProcessorPil

    def __init__(self, checkpoint: str, split: bool = False, **options: Any) -> None:
        self.split = split
        super().__init__(checkpoint, **options)

    @classmethod
    def build_processor(cls, config: Any, image_processor: Any, tokenizer: Any, chat_template: str) -> Any:
        side = config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor
        return ImageProcessor(image_processor, tokenizer, image_seq_len=side**2, chat_template=chat_template)

    @property
    def image_options(self) -> dict[str, Any]:
        return {"do_image_splitting": self.split}

    def image_info(self, inputs: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> ImageInfo:
        images = self.processor.image_processor
        counted = [images.get_number_of_image_patches(*size, self.image_options) for size in sizes]
        return ImageInfo(tiles=[(max(1, rows), max(1, cols)) for _, rows, cols in counted])
