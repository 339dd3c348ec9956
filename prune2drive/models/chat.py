"""Conversations in a model's chat format, with the places of their images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Part = dict[str, Any]


def turn(role: str, text: str) -> dict[str, Any]:
    """Returns a message that is one text."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def format_chat(processor: Any, messages: Sequence[Mapping[str, Any]]) -> str:
    """Fills a processor's chat template, up to where the answer begins."""
    return processor.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def format_with_images(processor: Any, messages: Sequence[Mapping[str, Any]], image_marker: str) -> str:
    """Fills a processor's chat template with messages that show images, up to where the answer begins.

    Images stand where the template puts them; where it shows none, at their places in the text. A text that holds the
    model's image token keeps it as `[image]`, since the token stands for an image.

    Args:
        messages: each with a `role` and a `content`: a text, or a list of parts, `{"type": "text", "text": "..."}` or
            `{"type": "image"}`.
        image_marker: the text of an image's place.
    """
    token = processor.image_token
    typed = [{"role": message["role"], "content": _parts(message["content"], token)} for message in messages]
    images = sum(part["type"] == "image" for message in typed for part in message["content"])
    if (shown := _filled(processor, typed)) is not None and shown.count(token) == images:
        return shown
    marked = (
        (message["role"], (image_marker if part["type"] == "image" else part["text"] for part in message["content"]))
        for message in typed
    )
    return format_chat(processor, [turn(role, "".join(texts)) for role, texts in marked])


def _filled(processor: Any, messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Fills a chat template; None where it cannot take parts that are no text."""
    from jinja2 import TemplateError  # which transformers needs for templates, and not for models

    try:
        return format_chat(processor, messages)
    except TemplateError:
        return None


def _parts(content: str | Sequence[Mapping[str, Any]], token: str) -> list[Part]:
    """Returns a message's content as parts that a chat template takes."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [
        {"type": "text", "text": part["text"].replace(token, "[image]")}
        if part["type"] == "text"
        else {"type": "image"}
        for part in parts
    ]
