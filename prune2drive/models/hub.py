"""A checkpoint in a folder or on the Hugging Face hub: its parts, and one line that says what is wrong with them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils import get_session
from safetensors import SafetensorError
from transformers.processing_utils import ProcessorMixin
from transformers.utils import cached_file

from prune2drive.errors import InputError
from prune2drive.files import read_json

SMALL_FILES = ("*.json", "*.model", "*.txt", "*.jinja")
WEIGHT_FILES = ("*.safetensors", "*.bin")
PATIENCE = 3.0  # seconds to wait for the hub's answer
FAILURES = (OSError, ValueError, RuntimeError, ImportError, TypeError, KeyError, AttributeError, SafetensorError)


class Checkpoint:
    """A checkpoint in a folder, or in a repository on the hub.

    Args:
        name: a folder, or an id such as `llava-hf/llava-1.5-7b-hf`.
        revision: branch, tag or commit on the hub.

    Raises:
        InputError: the name is a path without a folder.
    """

    def __init__(self, name: str, revision: str | None = None) -> None:
        self.name = str(Path(name).expanduser()) if name.startswith("~") else name
        self.revision = revision
        self.is_folder = Path(self.name).is_dir()
        if self.name.startswith(("/", ".")) and not self.is_folder:
            raise InputError(f"model.checkpoint={self.name}: no such folder")

    @cached_property
    def source(self) -> dict[str, Any]:
        """How transformers is to find the checkpoint: on the hub only where that answers, else in the local cache."""
        return {"revision": self.revision, "local_files_only": not self.is_folder and not _hub_answers()}

    def read(self, reader: Any, **options: Any) -> Any:
        """Reads one part of the checkpoint, of which no code is run.

        Args:
            reader: the transformers class of the part.
            **options: go to its `from_pretrained`.

        Raises:
            InputError: the part is missing or damaged.
        """
        try:
            return reader.from_pretrained(self.name, trust_remote_code=False, **self.source, **options)
        except FAILURES as error:
            raise self._unreadable(reader.__name__, error) from error

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The content of config.json.

        Raises:
            InputError: config.json is missing or damaged, or the hub cannot be reached.
        """
        try:
            folder = self.name if self.is_folder else Path(str(self._cached_config())).parent
            return read_settings(Path(folder))
        except InputError as error:
            raise InputError(f"model.checkpoint={self.name}: {error}") from None

    def folder(self, weights: bool = False) -> Path:
        """Returns the checkpoint's folder, downloaded first where it is on the hub.

        Args:
            weights: whether the weights must be there too.

        Raises:
            InputError: the download failed.
        """
        if self.is_folder:
            return Path(self.name)
        patterns = [*SMALL_FILES, *(WEIGHT_FILES if weights else ())]
        try:
            return Path(snapshot_download(self.name, allow_patterns=patterns, **self.source))
        except FAILURES as error:
            raise self._unreadable("a folder", error) from error

    def chat_template(self, tokenizer: Any) -> str:
        """Returns the chat template of the processor, or else of the tokenizer.

        Raises:
            InputError: neither has one.
        """
        try:
            settings, _ = ProcessorMixin.get_processor_dict(self.name, **self.source)
        except FAILURES as error:
            raise self._unreadable("a processor's settings", error) from error
        template = settings.get("chat_template") or tokenizer.chat_template
        if template is None:
            raise InputError(f"model.checkpoint={self.name}: neither processor nor tokenizer has a chat template")
        return template

    def _cached_config(self) -> Any:
        try:
            return cached_file(self.name, "config.json", **self.source)
        except FAILURES as error:
            if not self.source["local_files_only"]:
                raise InputError(f"{_reason(error)}; give a folder, or an id on the hub") from error
            raise InputError(
                "neither a folder nor in the local cache, and the hub cannot be reached; give a folder, or download it "
                "first with `hf download`"
            ) from error

    def _unreadable(self, part: str, error: Exception) -> InputError:
        return InputError(
            f"model.checkpoint={self.name}: cannot be read as {part} ({_reason(error)}); give a local folder or "
            "download it first with `hf download`"
        )


def read_settings(folder: Path) -> dict[str, Any]:
    """Reads the config.json of a checkpoint's folder.

    Raises:
        InputError: it is missing, no JSON object, or names no `model_type`.
    """
    file = folder / "config.json"
    settings = read_json(file, "give the folder of a checkpoint")
    if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
        raise InputError(f"{file}: no field 'model_type'; expected the config.json of a checkpoint")
    return settings


def _hub_answers() -> bool:
    """Asks the hub once: its own client would ask for every file, five times, with growing pauses."""
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # of a HTTP library that differs between releases, or because HF_HUB_OFFLINE is set
        return False
    return True


def _reason(error: Exception) -> str:
    """Returns the beginning of a message, in one line."""
    return " ".join(str(error).split())[:200]
