"""Answers chat messages with a pruned model, and counts the visual tokens that are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import GenerationConfig

from prune2drive.errors import InputError
from prune2drive.integrations.settings import Settings
from prune2drive.pruning import prune
from prune2drive.sample import Sample

LONGEST = 1024  # tokens of an answer, where a task does not say


@dataclass(frozen=True)
class Question:
    """A conversation to answer.

    Args:
        id: its name, by which methods that draw at random draw.
        messages: turns, each with a `role` and a `content`: a text, or a list of parts of `type` text or image, with
            the `text`, or the image or its file as `url`.
    """

    id: str
    messages: Sequence[Mapping[str, Any]]

    @property
    def images(self) -> list[Image.Image]:
        """The images in order.

        Raises:
            InputError: a part is neither text nor image.
        """
        return [opened(part["url"]) for part in self._parts() if part["type"] == "image"]

    @property
    def text(self) -> str:
        """The text of the last message."""
        parts = parts_of(self.messages[-1])
        return "".join(part["text"] for part in parts if part["type"] == "text")

    def _parts(self) -> list[Mapping[str, Any]]:
        parts = [part for message in self.messages for part in parts_of(message)]
        if other := [part["type"] for part in parts if part["type"] not in ("text", "image")]:
            raise InputError(f"{self.id} shows a {other[0]}: only text and images can be read; choose another task")
        return parts


@dataclass(frozen=True)
class Reply:
    """An answer and its tokens.

    Args:
        text: the answer.
        prompt_tokens: positions of the prompt before pruning.
        new_tokens: generated tokens, the end token included.
        visual_tokens: visual tokens of the prompt; 0 where it shows no image.
        kept_tokens: those of them that were kept after the last cut.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    visual_tokens: int
    kept_tokens: int


def answer(settings: Settings, questions: Sequence[Question], options: Mapping[str, Any]) -> list[Reply]:
    """Answers questions in one batch; those that show no image in a batch of their own, un-pruned.

    Args:
        settings: the model and how it is pruned.
        questions: what is asked.
        options: of `generate`, as `generation_options` returns them.

    Raises:
        InputError: a question shows what is no image, or the pruner cannot work on it.
    """
    samples = [
        Sample(each.id, {f"image_{index}": image for index, image in enumerate(each.images)}, each.text, "")
        for each in questions
    ]
    replies: dict[int, Reply] = {}
    for shows in (True, False):
        rows = [row for row, sample in enumerate(samples) if bool(sample.images) is shows]
        texts = [
            settings.adapter.chat_messages([without_urls(each) for each in questions[row].messages]) for row in rows
        ]
        if rows:
            replies |= zip(rows, _answer(settings, [samples[row] for row in rows], texts, options), strict=True)
    return [replies[row] for row in range(len(questions))]


def _answer(
    settings: Settings, samples: Sequence[Sample], texts: Sequence[str], options: Mapping[str, Any]
) -> list[Reply]:
    """Answers prompts that all show images, or none of which does."""
    adapter = settings.adapter
    prompts = adapter.collate_texts(samples, texts)
    if not samples[0].images:
        full = kept = [0] * len(samples)
        answers = adapter.generate(prompts, **options)
    else:
        pruning = prune(
            adapter.model,
            settings.pruner,
            settings.policy,
            token_map=prompts.token_maps,
            sample_ids=[each.id for each in samples],
            questions=[each.question for each in samples],
            **settings.options,
        )
        with pruning as trace:
            answers = adapter.generate(prompts, **options)
        beams = len(trace.full_tokens) // len(samples)  # each repeats its prompt in place
        full, kept = trace.full_tokens[::beams], trace.kept_tokens[::beams]
    rows = zip(answers, prompts.lengths, full, kept, strict=True)
    return [Reply(each.text, length, each.new_tokens, before, after) for each, length, before, after in rows]


def generation_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options of `generate` for what a task asks: greedy, unless a temperature or `do_sample` says otherwise.

    Options that `generate` does not have are left out; stop words are for `cut_at`.
    """
    known = {name: value for name, value in given.items() if hasattr(GenerationConfig(), name) and value is not None}
    temperature = known.get("temperature")
    samples = bool(known.get("do_sample", temperature)) and temperature != 0
    if not samples:
        known |= {"temperature": None, "top_p": None, "top_k": None}
    return {"max_new_tokens": LONGEST, **known, "do_sample": samples}


def cut_at(text: str, stops: str | Iterable[str] | None) -> str:
    """Returns a text up to the first of some stop words."""
    for stop in [stops] if isinstance(stops, str) else stops or ():
        text = text.split(stop)[0] if stop else text
    return text


def parts_of(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Returns the parts of a message's content."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def without_urls(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message whose images are places alone."""
    parts = [part if part["type"] == "text" else {"type": "image"} for part in parts_of(message)]
    return {"role": message["role"], "content": parts}


def opened(image: Any) -> Image.Image:
    """Returns an image in RGB, read from its file where it is the name of one.

    Raises:
        InputError: the file cannot be read as an image.
    """
    if not isinstance(image, Image.Image):
        try:
            image = Image.open(Path(image))
            image.load()
        except (OSError, TypeError) as error:
            raise InputError(f"{image}: cannot be read as an image ({error})") from error
    return image.convert("RGB")
