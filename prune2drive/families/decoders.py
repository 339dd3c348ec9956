"""Decoders that are models of their own, and the language part of several families."""

from __future__ import annotations

from prune2drive.families.base import Decoder

GATED = Decoder(("llama", "mistral", "qwen2", "qwen3"), has_gated_mlp=True)
