"""Holds what the readers of original formats have in common."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import GenerationConfig, PreTrainedTokenizerFast

from prune2drive.errors import InputError
from prune2drive.models.conversion.weights import Weights
from prune2drive.models.hub import read_settings

NOT_OURS = {"architectures", "auto_map", "model_type", "transformers_version", "_name_or_path", "torch_dtype", "dtype"}

AS_IT_IS = "{% for message in messages %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"


class Original(ABC):
    """A checkpoint in its original format, with config, tokenizer and image processor as transformers has them.

    Args:
        path: the checkpoint's folder.
        settings: content of config.json, to build the model's shape without a folder.

    Raises:
        InputError: the folder does not exist, or its config.json is of another format.
    """

    model_types: ClassVar[tuple[str, ...]]
    family: ClassVar[str]
    """The `model_type` after conversion."""
    native: ClassVar[Any]
    """The model class after conversion."""

    def __init__(self, path: str | Path, settings: Mapping[str, Any] | None = None) -> None:
        self.folder = Path(path).expanduser()
        self.settings = read_settings(self.folder) if settings is None else dict(settings)
        self.is_shape = settings is not None
        if self.settings["model_type"] not in self.model_types:
            raise InputError(
                f"{self.folder / 'config.json'}: model_type {self.settings['model_type']}, expected "
                f"{' or '.join(self.model_types)}"
            )

    @property
    @abstractmethod
    def config(self) -> Any:
        """The config of transformers' model.

        Raises:
            InputError: a field is missing, or has a value that transformers' model does not support.
        """

    @property
    @abstractmethod
    def tokenizer(self) -> Any: ...

    @property
    @abstractmethod
    def image_processor(self) -> Any: ...

    @property
    @abstractmethod
    def chat_template(self) -> str:
        """The template for one question in the original's words, with its system prompt as the default."""

    @property
    @abstractmethod
    def end_of_turn(self) -> str:
        """The token that ends an answer."""

    @property
    @abstractmethod
    def processor_settings(self) -> dict[str, Any]:
        """The content of processor_config.json."""

    @property
    def named_tokens(self) -> dict[str, str]:
        """Attribute name of the tokenizer -> special token."""
        return {}

    @abstractmethod
    def state_dict(self, weights: Weights) -> dict[str, Tensor]:
        """Returns the weights with transformers' names and layout.

        Raises:
            InputError: a weight has no place in the model.
        """

    @cached_property
    def text_config(self) -> Any:
        return self.config.get_text_config()

    def load(self, **options: Any) -> Any:
        """Loads the model with exactly the weights it needs.

        Args:
            **options: options of `from_pretrained`.

        Raises:
            InputError: weights are missing, superfluous, damaged or of another shape.
        """
        if self.is_shape:
            raise InputError(f"{self.folder}: a shape without weights; name a checkpoint as model.checkpoint=")
        weights = Weights(self.folder)
        state = self.state_dict(weights)
        try:
            model, found = self.native.from_pretrained(
                None, config=self.config, state_dict=state, output_loading_info=True, **options
            )
        except (RuntimeError, ValueError, ImportError) as error:
            raise InputError(f"{self.folder}: {' '.join(str(error).split())[:300]}") from error
        for problem in ("missing", "mismatched", "unexpected"):
            if wrong := sorted(map(str, found[f"{problem}_keys"])):
                raise InputError(
                    f"{self.folder}: {len(wrong)} weights are {problem}, first {wrong[0]}; expected a whole "
                    f"{self.settings['model_type']} checkpoint"
                )
        model.generation_config = self.generation_config()
        return model

    def generation_config(self) -> GenerationConfig:
        """Returns the checkpoint's generation config, with the end of a turn among its end tokens."""
        file = self.folder / "generation_config.json"
        found = GenerationConfig.from_pretrained(self.folder) if file.is_file() else GenerationConfig()
        ends = found.eos_token_id if found.eos_token_id is not None else self.text_config.eos_token_id
        every = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
        if self.has_tokenizer:
            turn = self.tokenizer.convert_tokens_to_ids(self.end_of_turn)
            every += [turn] if turn is not None and turn not in every else []
            found.pad_token_id = self.tokenizer.pad_token_id
        found.eos_token_id = every or None
        return found

    @property
    def has_tokenizer(self) -> bool:
        return (self.folder / "tokenizer_config.json").is_file()

    def read_tokenizer(self, source: Any, **options: Any) -> Any:
        """Reads the tokenizer by its class in transformers, without running the checkpoint's code.

        Raises:
            InputError: the tokenizer is missing or damaged.
        """
        try:
            return source.from_pretrained(self.folder, trust_remote_code=False, **options)
        except Exception as error:  # the libraries behind it raise bare exceptions for damaged files
            reason = " ".join(str(error).split())[:150]
            raise InputError(f"{self.folder}: no tokenizer that can be read ({reason}); download it again") from error

    def need(self, name: str, holder: dict[str, Any] | None = None, inside: str = "") -> Any:
        """Returns a field of config.json, or of `holder`, an object at the path `inside` in config.json.

        Raises:
            InputError: the field is missing or null.
        """
        value = (self.settings if holder is None else holder).get(name)
        if value is None:
            raise InputError(
                f"{self.folder / 'config.json'}: field {inside}{name!r} is missing; the {self.settings['model_type']} "
                "format has one"
            )
        return value

    def refuse(self, name: str, value: Any, expected: str) -> InputError:
        return InputError(f"{self.folder / 'config.json'}: {name} is {value!r}, expected {expected}")

    @property
    def dtype(self) -> torch.dtype | None:
        name = self.settings.get("torch_dtype") or self.settings.get("dtype")
        return getattr(torch, name) if isinstance(name, str) else None


def fields_of(config_class: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that a config class knows, with the rotary settings of older releases."""
    known = {field.name for field in dataclasses.fields(config_class)} | {"rope_theta", "rope_scaling"}
    return {name: value for name, value in settings.items() if name in known - NOT_OURS and value is not None}


def stand_in_tokenizer(tokens: Mapping[str, int]) -> PreTrainedTokenizerFast:
    """Builds a tokenizer of special tokens alone, for a model's shape without a folder."""
    unknown = next(index for index in range(len(tokens) + 1) if index not in tokens.values())
    tokenizer = Tokenizer(WordLevel({"<unk>": unknown, **tokens}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<unk>",
        additional_special_tokens=list(tokens),
        chat_template=AS_IT_IS,
    )
