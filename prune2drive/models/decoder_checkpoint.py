"""Writes the decoder of a vision-language model as a checkpoint of its own, in transformers' layout."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from prune2drive.errors import InputError
from prune2drive.files import replace_atomically


def check_decoder_alone(config: Any) -> None:
    """Refuses a model whose decoder transformers has no language model for.

    Args:
        config: the decoder's.

    Raises:
        InputError: there is none.
    """
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise InputError(f"{config.model_type}: transformers has no language model for a decoder of this kind alone")


def save_decoder(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes decoder, output head and tokenizer into a folder, whole or not at all; no weight is copied in memory.

    Args:
        model: the whole model.
        tokenizer: its tokenizer.
        folder: the folder, which must not exist.

    Raises:
        InputError: the folder cannot be written.
    """
    alone = _decoder_alone(model)

    def write(draft: Path) -> None:
        shutil.rmtree(draft, ignore_errors=True)  # of a killed process that had the same id
        alone.save_pretrained(draft)
        tokenizer.save_pretrained(draft)

    replace_atomically(folder, write)


def _decoder_alone(model: Any) -> Any:
    """Returns a causal language model that consists of the model's own decoder and head."""
    config, head = copy.deepcopy(model.config.get_text_config()), model.get_output_embeddings()
    config.tie_word_embeddings = head.weight is model.get_input_embeddings().weight
    with torch.device("meta"):
        alone = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    setattr(alone, alone.base_model_prefix, model.get_decoder())
    alone.set_output_embeddings(head)
    alone.generation_config = model.generation_config
    return alone
