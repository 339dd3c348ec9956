"""Reads checkpoints in their original formats into transformers' own classes, without running their code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prune2drive.errors import InputError
from prune2drive.models.conversion.internvl_chat import InternVLChat
from prune2drive.models.conversion.llava_next import LlavaNext
from prune2drive.models.conversion.original import Original
from prune2drive.models.hub import read_settings

ORIGINALS: tuple[type[Original], ...] = (LlavaNext, InternVLChat)

__all__ = ["ORIGINALS", "Original", "load_internvl_chat", "load_llava_next", "open_original"]


def open_original(path: str | Path, vision_config: dict[str, Any] | None = None) -> Original:
    """Opens a checkpoint in an original format.

    Args:
        vision_config: fields of `SiglipVisionConfig`, for an unknown vision tower in LLaVA-NeXT's format.

    Raises:
        InputError: the folder does not exist, or holds another format.
    """
    kind = read_settings(Path(path))["model_type"]
    if kind in LlavaNext.model_types:
        return LlavaNext(path, vision_config)
    if kind in InternVLChat.model_types:
        return InternVLChat(path)
    known = ", ".join(name for reader in ORIGINALS for name in reader.model_types)
    raise InputError(f"{Path(path) / 'config.json'}: model_type {kind} is no format that is converted here: {known}")


def load_llava_next(
    path: str | Path, vision_config: dict[str, Any] | None = None, image_token_id: int | None = None, **kw: Any
) -> Any:
    """Loads a checkpoint in LLaVA-NeXT's format, such as DriveMM, as `LlavaOnevisionForConditionalGeneration`.

    Args:
        vision_config: fields of `SiglipVisionConfig`, for an unknown vision tower.
        image_token_id: token id of visual tokens; a reserved id of the tokenizer by default.
        **kw: options of `from_pretrained`.

    Raises:
        InputError: the checkpoint is missing, damaged or of an unknown variant.
    """
    return LlavaNext(path, vision_config, image_token_id).load(**kw)


def load_internvl_chat(path: str | Path, **kw: Any) -> Any:
    """Loads a checkpoint in InternVL's remote-code format, such as DriveLMM-o1, as `InternVLForConditionalGeneration`.

    Args:
        **kw: options of `from_pretrained`.

    Raises:
        InputError: the checkpoint is missing, damaged or of an unknown variant.
    """
    return InternVLChat(path).load(**kw)
