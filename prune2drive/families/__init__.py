"""What the model families of Hugging Face look like inside: one file a family, found by the `model_type` of a config.

A new family is a new file here that sets a `Family`, and a `Decoder` where its decoder is of its own kind.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any, TypeVar

from prune2drive.errors import InputError
from prune2drive.families.base import Decoder, Family

Record = TypeVar("Record", Family, Decoder)


@cache
def known_families() -> dict[str, Family]:
    """Returns every known family, by `model_type`."""
    return _records(Family)


@cache
def known_decoders() -> dict[str, Decoder]:
    """Returns every known kind of decoder, by `model_type`."""
    return _records(Decoder)


def _records(kind: type[Record]) -> dict[str, Record]:
    """Returns the records of a kind that the files of this folder set, by `model_type`."""
    modules = [import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    records = [value for module in modules for value in vars(module).values() if isinstance(value, kind)]
    return {model_type: record for record in records for model_type in record.model_types}


def family_of(config: Any) -> Family:
    """Returns the family of a whole model's config.

    Raises:
        InputError: the family is not known.
    """
    families = known_families()
    if config.model_type not in families:
        raise InputError(
            f"where {config.model_type!r} models have their visual tokens is not known here (only for "
            f"{', '.join(families)}): pass token_map="
        )
    return families[config.model_type]


def decoder_of(config: Any) -> Decoder:
    """Returns what is known of a model's decoder; of an unknown one, only what its config shows.

    Args:
        config: of the decoder, or of a model that has it as its text model.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    unknown = Decoder((text.model_type,), rope_axes=3 if "mrope_section" in rope else 1)
    return known_decoders().get(text.model_type, unknown)
