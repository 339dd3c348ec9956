"""The argument by which models are given their KV cache: `cache` since transformers 5.24, `past_key_values` before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import transformers
from packaging.version import Version

CACHE = "cache" if Version(transformers.__version__) >= Version("5.24") else "past_key_values"


def cache_of(given: Mapping[str, Any]) -> Any:
    """Returns the KV cache among the arguments of a decoder or of one of its layers; None where there is none."""
    return given.get(CACHE, given.get("past_key_values"))
