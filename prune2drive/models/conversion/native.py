"""Writes a checkpoint in transformers' own format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prune2drive.files import read_json
from prune2drive.models.conversion.original import Original


def save(original: Original, folder: Path) -> None:
    """Writes model, tokenizer, image processor and chat template for `from_pretrained`.

    Args:
        original: the checkpoint to convert.
        folder: the folder to create.

    Raises:
        InputError: the checkpoint cannot be converted.
        OSError: the folder cannot be written.
    """
    tokenizer, image_processor, template = original.tokenizer, original.image_processor, original.chat_template
    model = original.load(dtype="auto")
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    image_processor.save_pretrained(folder)
    settings = original.processor_settings
    _update(folder / "processor_config.json", settings)
    _update(
        folder / "tokenizer_config.json",
        {"processor_class": settings["processor_class"], "extra_special_tokens": original.named_tokens},
    )


def _update(file: Path, changes: dict[str, Any]) -> None:
    """Changes fields of a JSON file, or creates the file with them."""
    content = read_json(file) if file.is_file() else {}
    text = json.dumps(content | changes, indent=2, sort_keys=True, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")
