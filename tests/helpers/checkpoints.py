"""Tiny LLaVA-OneVision checkpoints on disk."""

from pathlib import Path

from transformers import LlavaOnevisionForConditionalGeneration

from helpers import runs


def save(folder: Path) -> LlavaOnevisionForConditionalGeneration:
    """Writes a checkpoint part by part, each as transformers does; returns its model."""
    adapter = runs.Lively()
    adapter.model.save_pretrained(folder)
    adapter.processor.tokenizer.save_pretrained(folder)
    adapter.processor.image_processor.save_pretrained(folder)
    return adapter.model
