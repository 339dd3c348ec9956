"""The Qwen-VL families, whose number of visual tokens depends on the size of the image."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForImageTextToText, Qwen2_5_VLProcessor, Qwen3VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from prune2drive.errors import InputError
from prune2drive.models.pretrained import Pretrained, without_video

PROCESSORS = {"qwen2_5_vl": without_video(Qwen2_5_VLProcessor), "qwen3_vl": without_video(Qwen3VLProcessor)}


class QwenVL(Pretrained):
    """Qwen2.5-VL or Qwen3-VL.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub.
        max_pixels: number of pixels to which larger images are scaled down; null for the checkpoint's limit.
        **options: options of `Pretrained`.

    Raises:
        InputError: `max_pixels` is less than one token shows.
    """

    families = tuple(PROCESSORS)
    model_class = AutoModelForImageTextToText
    image_processor_class = Qwen2VLImageProcessorPil

    def __init__(self, checkpoint: str, max_pixels: int | None = None, **options: Any) -> None:
        self.max_pixels = max_pixels
        super().__init__(checkpoint, **options)
        images = self.processor.image_processor
        least = (images.patch_size * images.merge_size) ** 2
        if max_pixels is not None and (not isinstance(max_pixels, int) or max_pixels < least):
            raise InputError(f"model.max_pixels={max_pixels}: one token shows {least} pixels; use at least that many")

    @classmethod
    def build_processor(cls, config: Any, image_processor: Any, tokenizer: Any, chat_template: str) -> Any:
        return PROCESSORS[config.model_type](image_processor, tokenizer, chat_template=chat_template)

    @property
    def image_options(self) -> dict[str, Any]:
        if self.max_pixels is None:
            return {}
        size = self.processor.image_processor.size
        return {"size": {"shortest_edge": min(size["shortest_edge"], self.max_pixels), "longest_edge": self.max_pixels}}

    @property
    def image_marker(self) -> str:
        return f"<|vision_start|>{self.processor.image_token}<|vision_end|>"
