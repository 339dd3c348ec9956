"""A checkpoint behind an adapter: transformers' own format, or an original one that is converted while it is read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoConfig, AutoTokenizer
from transformers.utils import is_flash_attn_2_available

from prune2drive.errors import InputError, check_choice
from prune2drive.models.adapter import Adapter
from prune2drive.models.conversion import ORIGINALS, Original
from prune2drive.models.hub import Checkpoint

DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTION = ("sdpa", "eager", "flash_attention_2")


class Pretrained(Adapter):
    """A checkpoint of one model family.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub.
        revision: branch, tag or commit on the hub.
        dtype: number format of the weights: float32, bfloat16, float16, or `auto` for the checkpoint's.
        attention: `sdpa`, `eager` or, where installed, `flash_attention_2`.
        device_map: how to spread a large model over devices; null leaves placing it to the trainer.
        system: the system prompt; null leaves it to the chat template.
        published: fields of the checkpoint's config.json that set the model's shape. They are read where `checkpoint`
            is null: the adapter then has this shape and no weights.

    Raises:
        InputError: a checkpoint that is missing or of another family, or an option out of its range.
    """

    families: ClassVar[tuple[str, ...]]
    """`model_type` of the configs that the adapter takes."""
    model_class: ClassVar[Any]
    image_processor_class: ClassVar[Any]
    """The class that works on PIL images and needs no torchvision."""

    def __init__(
        self,
        checkpoint: str | None,
        revision: str | None = None,
        dtype: str = "auto",
        attention: str = "sdpa",
        device_map: str | None = None,
        system: str | None = None,
        published: Mapping[str, Any] | None = None,
    ) -> None:
        check_choice("model.dtype", dtype, DTYPES)
        check_attention("model.attention", attention)
        self.options = {"dtype": dtype, "attn_implementation": attention, "device_map": device_map}
        self.system = system
        if checkpoint is not None:
            self.checkpoint = Checkpoint(checkpoint, revision)
            self.original = self._original()
        elif published is not None:
            self.original = self._readers()[published["model_type"]](Path("published shape"), settings=published)
        else:
            raise InputError("model.checkpoint=null: name a folder or an id on the hub")
        if self.original:
            config, tokenizer = self.original.config, self.original.tokenizer
            image_processor, template = self.original.image_processor, self.original.chat_template
        else:
            config, tokenizer = self.checkpoint.read(AutoConfig), self.checkpoint.read(AutoTokenizer)
            image_processor = self.checkpoint.read(self.image_processor_class)
            template = self.checkpoint.chat_template(tokenizer)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        super().__init__(config, self.build_processor(config, image_processor, tokenizer, template))

    @classmethod
    @abstractmethod
    def build_processor(cls, config: Any, image_processor: Any, tokenizer: Any, chat_template: str) -> Any:
        """Builds the family's processor, without its video part."""

    def open_original(self, reader: type[Original], folder: Path) -> Original:
        """Opens a checkpoint in an original format.

        Args:
            reader: the class that reads the format.
            folder: the checkpoint's folder.
        """
        return reader(folder)

    def load(self) -> Any:
        if self.original:
            self.checkpoint.folder(weights=True)
            return self.original.load(**self.options)
        model, report = self.checkpoint.read(self.model_class, output_loading_info=True, **self.options)
        for problem, keys in (("missing", "missing_keys"), ("of another shape", "mismatched_keys")):
            if wrong := sorted(map(str, report[keys])):
                raise InputError(
                    f"model.checkpoint={self.checkpoint.name}: {len(wrong)} weights are {problem}, first {wrong[0]}; "
                    "download it again"
                )
        return model

    def _original(self) -> Original | None:
        """Opens the checkpoint by the reader of its format; None for transformers' own format.

        Raises:
            InputError: neither the format nor the family fits this adapter.
        """
        kind = self.checkpoint.settings["model_type"]
        if kind in self.families:
            return None
        readers = self._readers()
        if kind in readers:
            return self.open_original(readers[kind], self.checkpoint.folder())
        expected = " or ".join(self.model_types())
        others = {name: reader.family for reader in ORIGINALS for name in reader.model_types}
        hint = f"; an adapter of {others[kind]} models converts it" if kind in others else ""
        if not hint and "auto_map" in self.checkpoint.settings:
            hint = f"; it needs code of its own, which is never run here, and is not one of {', '.join(others)}"
        raise InputError(f"model.checkpoint={self.checkpoint.name}: a {kind} model, expected {expected}{hint}")

    @classmethod
    def model_types(cls) -> tuple[str, ...]:
        """Returns the `model_type` of every checkpoint that the adapter takes, those in original formats included."""
        return (*cls.families, *cls._readers())

    @classmethod
    def _readers(cls) -> dict[str, type[Original]]:
        """Returns the readers of formats that become one of the adapter's families, by the format's `model_type`."""
        return {name: reader for reader in ORIGINALS for name in reader.model_types if reader.family in cls.families}


def check_attention(option: str, attention: str) -> None:
    """Refuses an attention that models cannot use here.

    Args:
        option: the option's name as a user writes it.

    Raises:
        InputError: it is unknown or not installed.
    """
    check_choice(option, attention, ATTENTION)
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise InputError(f"{option}=flash_attention_2: the package flash-attn is not installed; use sdpa")


def without_video(processor_class: Any) -> Any:
    """Returns a processor class of transformers without its video part, which needs torchvision."""

    class ImageProcessor(processor_class):
        def __init__(self, image_processor: Any, tokenizer: Any, **settings: Any) -> None:
            super().__init__(image_processor, tokenizer, None, **settings)
            self.video_token_id = -1  # a tokenizer without the token would count its unknown words as videos

    return ImageProcessor
