"""The LLaVA-OneVision family: SigLIP, a projector, and a Qwen2 or Llama decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from prune2drive.errors import InputError
from prune2drive.models.adapter import Adapter


class ImageProcessor(LlavaOnevisionProcessor):
    """The stock processor without its video part, which needs torchvision."""

    def __init__(self, image_processor: Any, tokenizer: Any, **settings: Any) -> None:
        super().__init__(image_processor, tokenizer, None, **settings)


class LlavaOnevision(Adapter):
    """A LLaVA-OneVision checkpoint in Hugging Face format.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub.
        revision: branch, tag or commit on the hub.
        dtype: of the weights; `auto` takes the checkpoint's.
        attention: `sdpa`, `eager` or, where installed, `flash_attention_2`.
        device_map: how to spread a large model over devices; null leaves placing it to the trainer.

    Raises:
        InputError: no such checkpoint, or one of another family.
    """

    family = "llava_onevision"

    def __init__(
        self,
        checkpoint: str,
        revision: str | None = None,
        dtype: str = "auto",
        attention: str = "sdpa",
        device_map: str | None = None,
    ) -> None:
        self.checkpoint = str(Path(checkpoint).expanduser()) if checkpoint.startswith("~") else checkpoint
        self.revision = revision
        self.options = {"dtype": dtype, "attn_implementation": attention, "device_map": device_map}
        config = self._read(AutoConfig)
        if config.model_type != self.family:
            raise InputError(f"model.checkpoint={checkpoint}: a {config.model_type} model, expected {self.family}")
        tokenizer = self._read(AutoTokenizer)
        vision = config.vision_config
        processor = ImageProcessor(
            self._read(LlavaOnevisionImageProcessorPil),
            tokenizer,
            num_image_tokens=(vision.image_size // vision.patch_size) ** 2,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            vision_aspect_ratio=config.vision_aspect_ratio,
            chat_template=self._chat_template(tokenizer),
        )
        super().__init__(config, processor)

    def load(self) -> Any:
        source = LlavaOnevisionForConditionalGeneration
        model, found = self._read(source, output_loading_info=True, **self.options)
        if missing := sorted(found["missing_keys"]):
            raise InputError(
                f"model.checkpoint={self.checkpoint}: {len(missing)} weights are missing, first {missing[0]}; "
                "download it again"
            )
        return model

    def _read(self, source: Any, **options: Any) -> Any:
        """Reads one part of the checkpoint.

        Raises:
            InputError: what is missing, and what to do.
        """
        where = self.checkpoint
        if where.startswith(("/", ".")) and not Path(where).is_dir():
            raise InputError(f"model.checkpoint={where}: no such folder")
        try:
            return source.from_pretrained(where, revision=self.revision, **options)
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"model.checkpoint={where}: cannot be read as {source.__name__} ({reason}); give a local folder or "
                "download it first with `hf download`"
            ) from error

    def _chat_template(self, tokenizer: Any) -> str:
        """The checkpoint's chat template: its processor's, kept in a file of its own, or its tokenizer's."""
        from transformers.processing_utils import ProcessorMixin

        found, _ = ProcessorMixin.get_processor_dict(self.checkpoint, revision=self.revision)
        template = found.get("chat_template") or tokenizer.chat_template
        if template is None:
            raise InputError(f"model.checkpoint={self.checkpoint}: neither processor nor tokenizer has a chat template")
        return template
