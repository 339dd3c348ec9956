"""The LLaVA-1.5 family: CLIP, a projector, and a Llama decoder."""

from __future__ import annotations

from typing import Any

from transformers import LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from prune2drive.families.llava import has_class_token
from prune2drive.models.pretrained import Pretrained


class Llava(Pretrained):
    """LLaVA-1.5, with the options of `Pretrained`; images are cropped to a central square."""

    families = ("llava",)
    model_class = LlavaForConditionalGeneration
    image_processor_class = CLIPImageProcessorPil

    @classmethod
    def build_processor(cls, config: Any, image_processor: Any, tokenizer: Any, chat_template: str) -> Any:
        return LlavaProcessor(
            image_processor,
            tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=int(has_class_token(config)),
            image_token=tokenizer.convert_ids_to_tokens(config.image_token_id),
            chat_template=chat_template,
        )
