"""Reads LLaVA-NeXT's format (LLaVA-VL/LLaVA-NeXT), as in DriveMM: a decoder's config.json with `mm_` fields.

A SigLIP tower without its last layer, a two-layer MLP and a Llama or Qwen2 decoder make up transformers'
LLaVA-OneVision. Several images are padded to squares, with a newline token after each.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from torch import Tensor
from transformers import (
    AddedToken,
    AutoTokenizer,
    LlamaConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from prune2drive.errors import InputError
from prune2drive.models.conversion.original import Original, fields_of, stand_in_tokenizer
from prune2drive.models.conversion.templates import one_turn
from prune2drive.models.conversion.weights import Renaming, Weights
from prune2drive.sample import IMAGE_MARKER

log = logging.getLogger(__name__)

TEXT = {"llava_llama": LlamaConfig, "llava_qwen": Qwen2Config}
TEXT_FIELDS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
TOWERS: dict[str, dict[str, int]] = {
    # Without the last layer, whose output is unused.
    "siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
}
RESERVED = "<|reserved_special_token_0|>"
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
TOWER = r"model\.vision_tower\.vision_tower\.vision_model\."


class LlavaNext(Original):
    """A checkpoint in LLaVA-NeXT's format.

    Args:
        path: the checkpoint's folder.
        vision_config: fields of `SiglipVisionConfig` without the unused last layer, for an unknown vision tower.
        image_token_id: token id of visual tokens; by default a reserved special token, or else an id that the
            tokenizer does not use.
        settings: content of config.json, to build the model's shape without a folder.

    Raises:
        InputError: a field is missing, or LLaVA-OneVision's classes cannot express the variant.
    """

    model_types = tuple(TEXT)
    family = "llava_onevision"
    native = LlavaOnevisionForConditionalGeneration

    def __init__(
        self,
        path: str | Path,
        vision_config: dict[str, Any] | None = None,
        image_token_id: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(path, settings)
        self._vision, self._image_token_id = vision_config, image_token_id

    @cached_property
    def config(self) -> Any:
        for name, expected in {"mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad"}.items():
            if (found := self.need(name)) != expected:
                raise self.refuse(name, found, f"{expected!r}, which is what LLaVA-OneVision's classes compute")
        if (aspect := self.settings.get("image_aspect_ratio")) != "pad":
            log.warning("%s: image_aspect_ratio is %s; several images are padded here", self.folder, aspect)
        vision = self._vision_config()
        image_token_id = self._image_token()
        config = LlavaOnevisionConfig(
            text_config=self._text,
            vision_config=vision,
            image_token_index=image_token_id,
            video_token_index=image_token_id,
            projector_hidden_act="gelu",
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            vision_aspect_ratio="anyres_max_9",
            image_grid_pinpoints=[[vision.image_size, vision.image_size]],
            tie_word_embeddings=self._text.tie_word_embeddings,
        )
        config.dtype = self.dtype
        return config

    @cached_property
    def _text(self) -> Any:
        for name in TEXT_FIELDS:
            self.need(name)
        text_class = TEXT[self.settings["model_type"]]
        tied = bool(self.settings.get("tie_word_embeddings", False))
        return text_class(**fields_of(text_class, self.settings) | {"tie_word_embeddings": tied})

    def _vision_config(self) -> SiglipVisionConfig:
        tower = Path(str(self.need("mm_vision_tower"))).name
        fields = self._vision or TOWERS.get(tower)
        if fields is None:
            raise self.refuse("mm_vision_tower", tower, f"{' or '.join(TOWERS)}, or its shape as vision_config=")
        return SiglipVisionConfig(**{"vision_use_head": False} | fields)

    def _image_token(self) -> int:
        """Returns the token id of visual tokens, which no text contains.

        Raises:
            InputError: the id is outside the decoder's vocabulary, or the tokenizer has no free id.
        """
        wanted, vocabulary = self._image_token_id, self._text.vocab_size
        if wanted is None and self.has_tokenizer:
            unused = len(self._bare_tokenizer)
            wanted = self._bare_tokenizer.get_vocab().get(RESERVED, unused if unused < vocabulary else None)
            if wanted is None:
                raise InputError(f"{self.folder}: the tokenizer has no reserved token; name one as image_token_id=")
        if wanted is None:
            wanted = vocabulary - 1
        if not 0 <= wanted < vocabulary:
            raise InputError(f"image_token_id={wanted}: the vocabulary has ids 0 to {vocabulary - 1}")
        return wanted

    @cached_property
    def _bare_tokenizer(self) -> Any:
        return self.read_tokenizer(AutoTokenizer, config=self._text)

    @cached_property
    def tokenizer(self) -> Any:
        if self.is_shape:
            return stand_in_tokenizer({IMAGE_MARKER: self.config.image_token_id})
        tokenizer = self._bare_tokenizer
        if self.config.image_token_id == len(tokenizer):
            tokenizer.add_tokens([AddedToken(IMAGE_MARKER, special=True, normalized=False)], special_tokens=True)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    @cached_property
    def image_processor(self) -> LlavaOnevisionImageProcessorPil:
        side = self.config.vision_config.image_size
        return LlavaOnevisionImageProcessorPil(
            size={"height": side, "width": side},
            image_grid_pinpoints=[[side, side]],
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )

    @cached_property
    def chat_template(self) -> str:
        """The turns, rendered one by one with the tokenizer's template and joined as in LLaVA-NeXT's training."""
        tokenizer = self.tokenizer
        if self.is_shape:
            return tokenizer.chat_template
        if tokenizer.chat_template is None:
            raise InputError(f"{self.folder}: tokenizer_config.json has no chat_template; download it again")

        def turn(role: str, text: str) -> str:
            shown = tokenizer.apply_chat_template([{"role": role, "content": text}], tokenize=False)
            return shown.removeprefix(tokenizer.bos_token or "")

        try:
            start = tokenizer.bos_token or ""
            opened = turn("assistant", "").removesuffix("\n").removesuffix(self.end_of_turn)
            return one_turn(
                lambda system, question: start + turn("system", system) + turn("user", question) + opened, SYSTEM
            )
        except TemplateError as error:
            raise InputError(f"{self.folder}: the tokenizer's chat template fails ({error})") from error

    @property
    def end_of_turn(self) -> str:
        return "<|eot_id|>" if self.settings["model_type"] == "llava_llama" else "<|im_end|>"

    @property
    def processor_settings(self) -> dict[str, Any]:
        vision, token = self.config.vision_config, self.tokenizer.convert_ids_to_tokens(self.config.image_token_id)
        return {
            "processor_class": "LlavaOnevisionProcessor",
            "num_image_tokens": (vision.image_size // vision.patch_size) ** 2,
            "vision_feature_select_strategy": self.config.vision_feature_select_strategy,
            "vision_aspect_ratio": self.config.vision_aspect_ratio,
            "image_token": token,
        }

    def state_dict(self, weights: Weights) -> dict[str, Tensor]:
        kept = self.config.vision_config.num_hidden_layers
        rename = Renaming(
            "LLaVA-NeXT",
            [
                (r".*rotary_emb\.inv_freq$", None),
                (r"model\.vision_resampler\.", None),
                (rf"{TOWER}head\.", None),
                (rf"{TOWER}encoder\.layers\.{kept}\.", None),
                (rf"{TOWER}(embeddings|encoder|post_layernorm)\.", r"model.vision_tower.\1."),
                (r"model\.mm_projector\.0\.", "model.multi_modal_projector.linear_1."),
                (r"model\.mm_projector\.2\.", "model.multi_modal_projector.linear_2."),
                (r"model\.(embed_tokens|layers|norm)\.", r"model.language_model.\1."),
                (r"(model\.image_newline|lm_head\.weight)$", r"\1"),
            ],
        )
        named = {name: rename(name, weights.file(name)) for name in weights}
        return {target: weights[name] for name, target in named.items() if target is not None}
