"""The InternVL family: InternViT with pixel shuffle, a projector, and a Qwen2 or Llama decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import InternVLForConditionalGeneration, InternVLProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from prune2drive.errors import check_whole
from prune2drive.families.base import ImageInfo
from prune2drive.models.pretrained import Pretrained, without_video

ImageProcessor = without_video(InternVLProcessor)


class InternVL(Pretrained):
    """InternVL, or a checkpoint in InternVL's remote-code format, such as DriveLMM-o1.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub.
        tiles: largest number of tiles of an image; 1 shows the whole image as a square.
        **options: options of `Pretrained`.

    Raises:
        InputError: `tiles` is below 1.
    """

    families = ("internvl",)
    model_class = InternVLForConditionalGeneration
    image_processor_class = GotOcr2ImageProcessorPil

    def __init__(self, checkpoint: str, tiles: int = 1, **options: Any) -> None:
        check_whole("model.tiles", tiles)
        self.tiles = tiles
        super().__init__(checkpoint, **options)

    @classmethod
    def build_processor(cls, config: Any, image_processor: Any, tokenizer: Any, chat_template: str) -> Any:
        tokens = {"start_image_token": "<img>", "end_image_token": "</img>", "video_token": "<video>"}
        tokens["context_image_token"] = tokenizer.convert_ids_to_tokens(config.image_token_id)
        for name, token in tokens.items():
            if not hasattr(tokenizer, name):
                setattr(tokenizer, name, token)
                setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
        return ImageProcessor(
            image_processor, tokenizer, image_seq_length=config.image_seq_length, chat_template=chat_template
        )

    @property
    def image_options(self) -> dict[str, Any]:
        return {"crop_to_patches": self.tiles > 1, "min_patches": 1, "max_patches": self.tiles}

    def image_info(self, inputs: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> ImageInfo:
        tile = self.processor.image_processor.size
        canvases = [get_optimal_tiled_canvas(size, (tile["height"], tile["width"]), 1, self.tiles) for size in sizes]
        return ImageInfo(sizes=sizes, tiles=[(rows, cols) for cols, rows in canvases])
