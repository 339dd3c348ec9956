"""A checkpoint on disk or on the Hugging Face hub: its parts, and one line of what is wrong with them."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers.processing_utils import ProcessorMixin
from transformers.utils import cached_file

from prune2drive.errors import InputError

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
WEIGHT_FILES = ("*.safetensors", "*.bin")
FAILURES = (OSError, ValueError, RuntimeError, ImportError, TypeError, KeyError, AttributeError, SafetensorError)


class Checkpoint:
    """A folder, or a repository on the hub.

    Args:
        name: a folder, or an id such as `llava-hf/llava-1.5-7b-hf`.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: a path without a folder.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name = str(Path(name).expanduser()) if name.startswith("~") else name
        self.revision = revision
        if self.name.startswith(("/", ".")) and not Path(self.name).is_dir():
            raise InputError(f"model.checkpoint={self.name}: no such folder")

    def read(self, source: Any, **options: Any) -> Any:
        """One part, by the transformers class that reads it. No code of the checkpoint is run.

        Raises:
            InputError: what is missing or damaged, and what to do.
        """
        try:
            return source.from_pretrained(self.name, revision=self.revision, trust_remote_code=False, **options)
        except FAILURES as error:
            raise self.unreadable(source.__name__, error) from error

    def unreadable(self, what: str, error: Exception) -> InputError:
        reason = " ".join(str(error).split())[:200]
        return InputError(
            f"model.checkpoint={self.name}: cannot be read as {what} ({reason}); give a local folder or "
            "download it first with `hf download`"
        )

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What config.json says.

        Raises:
            InputError: there is none, or none that can be read.
        """
        try:
            file = cached_file(self.name, "config.json", revision=self.revision)
            settings = json.loads(Path(str(file)).read_text(encoding="utf-8"))
        except (*FAILURES, RecursionError) as error:
            raise self.unreadable("a checkpoint's config.json", error) from error
        if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
            raise InputError(f"model.checkpoint={self.name}: config.json has no 'model_type'; download it again")
        return settings

    def folder(self, weights: bool = False) -> Path:
        """The folder, downloaded first where the checkpoint is on the hub.

        Args:
            weights: whether the weights have to be there too.

        Raises:
            InputError: it cannot be downloaded.
        """
        if Path(self.name).is_dir():
            return Path(self.name)
        patterns = [*SMALL_FILES, *(WEIGHT_FILES if weights else ())]
        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=patterns))
        except FAILURES as error:
            raise self.unreadable("a folder", error) from error

    def chat_template(self, tokenizer: Any) -> str:
        """The template of the processor, kept in a file of its own, or the tokenizer's.

        Raises:
            InputError: there is none.
        """
        try:
            found, _ = ProcessorMixin.get_processor_dict(self.name, revision=self.revision)
        except FAILURES as error:
            raise self.unreadable("a processor's settings", error) from error
        template = found.get("chat_template") or tokenizer.chat_template
        if template is None:
            raise InputError(f"model.checkpoint={self.name}: neither processor nor tokenizer has a chat template")
        return template
