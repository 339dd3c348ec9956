"""Reads InternVL's remote-code format (OpenGVLab/InternVL, `internvl_chat`), as in DriveLMM-o1 and Mini-InternVL.

InternViT, pixel shuffle, a two-layer MLP and an InternLM2, Qwen2 or Llama decoder make up transformers' InternVL.
InternLM2 joins queries, keys and values in one matrix. LoRA adapters may lie beside the weights they change.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

from torch import Tensor
from transformers import (
    AddedToken,
    AutoTokenizer,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlamaTokenizer,
    Qwen2Config,
)
from transformers.convert_slow_tokenizer import import_protobuf
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from prune2drive.errors import InputError
from prune2drive.models.conversion.lora import merge
from prune2drive.models.conversion.original import Original, fields_of, stand_in_tokenizer
from prune2drive.models.conversion.templates import one_turn
from prune2drive.models.conversion.weights import Renaming, Weights

DECODERS = {"InternLM2ForCausalLM": LlamaConfig, "Qwen2ForCausalLM": Qwen2Config, "LlamaForCausalLM": LlamaConfig}
TEXT_FIELDS = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
VISION_FIELDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
TOKENS = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
VIDEO = "<video>"
OLDER = "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
NEWER = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
TEMPLATES = {  # `template` of config.json -> separator of turns, and system prompt
    "internvl2_5": ("<|im_end|>\n", NEWER),
    "internlm2-chat": ("<|im_end|>", OLDER),
    "Hermes-2": ("<|im_end|>", OLDER),
}
VISION, LAYER = r"vision_model\.encoder\.layers\.(\d+)\.", r"model.vision_tower.encoder.layer.\1."
TEXT, TEXT_LAYER = r"language_model\.model\.layers\.(\d+)\.", r"model.language_model.layers.\1."


class InternVLChat(Original):
    """A checkpoint in InternVL's remote-code format, whose code is never run."""

    model_types = ("internvl_chat",)
    family = "internvl"
    native = InternVLForConditionalGeneration

    @cached_property
    def config(self) -> Any:
        if (found := self.settings.get("ps_version", "v1")) != "v2":
            raise self.refuse("ps_version", found, "'v2', the pixel shuffle of transformers' InternVL")
        text, vision = self._text_config, self._vision_config()
        ratio = self.need("downsample_ratio")
        side = vision.image_size[0] // vision.patch_size[0]
        config = InternVLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=self._image_token_id(text.vocab_size),
            image_seq_length=int(side * ratio) ** 2,
            downsample_ratio=ratio,
            vision_feature_layer=self.settings.get("select_layer", -1),
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
        config.dtype = self.dtype
        return config

    @cached_property
    def _text_config(self) -> Any:
        settings = self.need("llm_config")
        inside = "llm_config."
        kind = (self.need("architectures", settings, inside) or [None])[0]
        if kind not in DECODERS:
            raise self.refuse(f"{inside}architectures", kind, " or ".join(DECODERS))
        for name in TEXT_FIELDS:
            self.need(name, settings, inside)
        config_class = DECODERS[kind]
        fields = fields_of(config_class, settings) | {"tie_word_embeddings": False}
        if kind == "InternLM2ForCausalLM":
            fields["attention_bias"] = bool(settings.get("bias", False))
        return config_class(**fields)

    def _vision_config(self) -> Any:
        settings = self.need("vision_config")
        inside = "vision_config."
        for name in VISION_FIELDS:
            self.need(name, settings, inside)
        fields = fields_of(InternVLVisionConfig, settings)
        return InternVLVisionConfig(
            **fields
            | {
                "image_size": self.settings.get("force_image_size") or self.need("image_size", settings, inside),
                "attention_bias": bool(self.need("qkv_bias", settings, inside)),
                "use_qk_norm": bool(self.need("qk_normalization", settings, inside)),
                "norm_type": self.need("norm_type", settings, inside),
            }
        )

    def _image_token_id(self, vocabulary: int) -> int:
        if not self.has_tokenizer:
            return vocabulary - 1
        found = self.tokenizer.convert_tokens_to_ids(TOKENS["context_image_token"])
        if found is None or not 0 <= found < vocabulary:
            raise InputError(f"{self.folder}: the tokenizer has no <IMG_CONTEXT> within the {vocabulary} embeddings")
        return found

    @cached_property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; InternLM2's sentencepiece model becomes a fast one."""
        tokenizer = self._stand_in() if self.is_shape else self._read_tokenizer()
        missing = [token for token in (*TOKENS.values(), VIDEO) if token not in tokenizer.get_vocab()]
        added = [AddedToken(token, special=True, normalized=False) for token in missing if token == VIDEO]
        if len(missing) > len(added):
            raise InputError(f"{self.folder}: the tokenizer has no {missing[0]}; expected one of an InternVL model")
        tokenizer.add_tokens(added, special_tokens=True)
        for name, token in self.named_tokens.items():
            setattr(tokenizer, name, token)
            setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(token))
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer

    def _stand_in(self) -> Any:
        image = TOKENS["context_image_token"]
        brackets = [token for token in self.named_tokens.values() if token != image]
        return stand_in_tokenizer({image: self.config.image_token_id} | {t: i for i, t in enumerate(brackets)})

    def _read_tokenizer(self) -> Any:
        pieces = self.folder / "tokenizer.model"
        if not pieces.is_file():
            return self.read_tokenizer(AutoTokenizer, config=self._text_config)
        try:
            proto = import_protobuf().ModelProto.FromString(pieces.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{pieces}: no sentencepiece model ({error}); download it again") from error
        return self.read_tokenizer(LlamaTokenizer, add_prefix_space=proto.normalizer_spec.add_dummy_prefix)

    @cached_property
    def image_processor(self) -> GotOcr2ImageProcessorPil:
        height, width = self.config.vision_config.image_size
        return GotOcr2ImageProcessorPil(
            size={"height": height, "width": width}, image_mean=list(IMAGE_MEAN), image_std=list(IMAGE_STD)
        )

    @cached_property
    def chat_template(self) -> str:
        if self.is_shape:
            return self.tokenizer.chat_template
        name = self.need("template")
        if name not in TEMPLATES:
            raise self.refuse("template", name, " or ".join(TEMPLATES))
        part, default = TEMPLATES[name]

        def render(system: str, question: str) -> str:
            return f"<|im_start|>system\n{system}{part}<|im_start|>user\n{question}{part}<|im_start|>assistant\n"

        return one_turn(render, default)

    @property
    def end_of_turn(self) -> str:
        return "<|im_end|>"

    @property
    def processor_settings(self) -> dict[str, Any]:
        return {"processor_class": "InternVLProcessor", "image_seq_length": self.config.image_seq_length}

    @property
    def named_tokens(self) -> dict[str, str]:
        return {**TOKENS, "video_token": VIDEO}

    def state_dict(self, weights: Weights) -> dict[str, Tensor]:
        plain = merge(weights, ("language_model", "vision_model"))
        rename = Renaming("InternVL chat", RULES)
        state: dict[str, Tensor] = {}
        for name, file in plain.files.items():
            target = rename(name, file)
            if target is not None:
                state |= self._parts(target, plain[name])
        return state

    def _parts(self, name: str, tensor: Tensor) -> dict[str, Tensor]:
        """Returns a weight by its name, or joined queries, keys and values by their three names."""
        if match := re.search(r"\.(wqkv|qkv)\.", name):
            split = self._split_grouped if match[1] == "wqkv" else lambda joined: joined.chunk(3)
            names = [name.replace(match[0], f".{part}_proj.") for part in "qkv"]
            return dict(zip(names, (part.contiguous() for part in split(tensor)), strict=True))
        return {name: tensor}

    def _split_grouped(self, joined: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Splits InternLM2's rows, which hold query heads, key and value of one key-value head after another."""
        text = self.text_config
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        groups = text.num_attention_heads // text.num_key_value_heads
        rows = text.num_key_value_heads * (groups + 2) * size
        if len(joined) != rows:
            raise InputError(f"{self.folder}: a wqkv of {len(joined)} rows, expected {rows} from llm_config")
        heads = joined.reshape(text.num_key_value_heads, groups + 2, size, *joined.shape[1:])
        query, key, value = heads[:, :groups], heads[:, groups], heads[:, groups + 1]
        return query.flatten(0, 2), key.flatten(0, 1), value.flatten(0, 1)


RULES = [
    (r".*rotary_emb\.inv_freq$", None),
    (r"mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"mlp1\.3\.", "model.multi_modal_projector.linear_2."),
    (r"vision_model\.embeddings\.class_embedding$", "model.vision_tower.embeddings.cls_token"),
    (r"vision_model\.embeddings\.position_embedding$", "model.vision_tower.embeddings.position_embeddings"),
    (
        r"vision_model\.embeddings\.patch_embedding\.",
        "model.vision_tower.embeddings.patch_embeddings.projection.",
    ),
    (rf"{VISION}ls([12])$", rf"{LAYER}lambda_\2"),
    (rf"{VISION}attn\.qkv\.", rf"{LAYER}attention.qkv."),
    (rf"{VISION}attn\.proj\.", rf"{LAYER}attention.projection_layer."),
    (rf"{VISION}attn\.([qk]_norm)\.", rf"{LAYER}attention.\2."),
    (rf"{VISION}norm1\.", rf"{LAYER}layernorm_before."),
    (rf"{VISION}norm2\.", rf"{LAYER}layernorm_after."),
    (rf"{VISION}mlp\.(fc[12])\.", rf"{LAYER}mlp.\2."),
    (rf"{TEXT}attention\.wqkv\.", rf"{TEXT_LAYER}self_attn.wqkv."),
    (rf"{TEXT}attention\.wo\.", rf"{TEXT_LAYER}self_attn.o_proj."),
    (rf"{TEXT}feed_forward\.w1\.", rf"{TEXT_LAYER}mlp.gate_proj."),
    (rf"{TEXT}feed_forward\.w3\.", rf"{TEXT_LAYER}mlp.up_proj."),
    (rf"{TEXT}feed_forward\.w2\.", rf"{TEXT_LAYER}mlp.down_proj."),
    (rf"{TEXT}attention_norm\.", rf"{TEXT_LAYER}input_layernorm."),
    (rf"{TEXT}ffn_norm\.", rf"{TEXT_LAYER}post_attention_layernorm."),
    (rf"{TEXT}(self_attn|mlp|input_layernorm|post_attention_layernorm)\.", rf"{TEXT_LAYER}\2."),
    (r"language_model\.model\.(tok_embeddings|embed_tokens)\.", "model.language_model.embed_tokens."),
    (r"language_model\.model\.norm\.", "model.language_model.norm."),
    (r"language_model\.(output|lm_head)\.", "lm_head."),
]
