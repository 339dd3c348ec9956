"""Defines the adapter, which makes prompts of samples and answers of prompts for one model family.

Shape suffixes: B batch rows, T generated tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationConfig

from prune2drive.errors import InputError
from prune2drive.families import family_of
from prune2drive.families.base import Family, ImageInfo
from prune2drive.families.kv_cache import CACHE
from prune2drive.families.locate import locate_batch
from prune2drive.models.chat import format_chat, format_with_images, turn
from prune2drive.models.prompts import Answer, Prompts
from prune2drive.models.retiring import can_retire, generate_retiring, takes_likeliest
from prune2drive.sample import IMAGE_MARKER, Sample
from prune2drive.token_map import TokenMap


class FrameReading(Protocol):
    """How far a batch was read before it is answered."""

    @property
    def is_begun(self) -> bool:
        """Whether the beginnings of all prompts were read."""

    @property
    def cache(self) -> Cache:
        """The KV cache to fill further."""

    def generate_greedily(self, ends: Tensor, max_new_tokens: int) -> Tensor:
        """Answers prompts whose beginnings were read, each up to one of the tokens `ends`; [B, T]."""

    def read_questions(self) -> None:
        """Reads prompts whose beginnings were read, but for each one's last token, into a row each of the KV cache."""

    def keep_rows(self, rows: Tensor) -> None:
        """Follows a batch of which only some rows go on."""


class Adapter(ABC):
    """Turns samples into prompts and prompts into answers, for one model family.

    `model` loads the weights on first use, so that a mistake in config or processor shows before.

    Args:
        config: the model's config.
        processor: the model's processor, called with a list of images for each sample.
    """

    system: str | None = None
    """The system prompt; None leaves it to the chat template."""
    is_noise: ClassVar[bool] = False
    """Whether the model has random weights, so that its answers mean nothing."""
    cpu_threads: ClassVar[int | None] = None
    """Number of CPU threads, for a model so small that more threads make it slower."""

    def __init__(self, config: Any, processor: Any) -> None:
        self.config, self.processor = config, processor
        self.processor.tokenizer.padding_side = "left"

    @abstractmethod
    def load(self) -> Any:
        """Loads the model with its weights.

        Raises:
            InputError: weights are missing or damaged.
        """

    @cached_property
    def model(self) -> Any:
        """The model, ready to generate."""
        return self.load().eval()

    @property
    def pad(self) -> int:
        """Token id of padding."""
        tokenizer = self.processor.tokenizer
        return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    @property
    def text_config(self) -> Any:
        """The decoder's config."""
        return self.config.get_text_config()

    @property
    def family(self) -> Family:
        """Description of the model's modules and token layout."""
        return family_of(self.config)

    @property
    def vision_modules(self) -> list[nn.Module]:
        """The modules that turn pixels into visual tokens: vision tower and projector."""
        return [getattr(self.model.base_model, name) for name in self.family.vision_modules]

    @property
    def image_marker(self) -> str:
        """Text that the processor replaces by an image's tokens."""
        return self.processor.image_token

    @property
    def image_options(self) -> dict[str, Any]:
        """The processor's options for images."""
        return {}

    def chat(self, prompt: str) -> str:
        """Returns a prompt in the model's chat format, with the model's image markers."""
        return format_chat(self.processor, self._led([turn("user", prompt.replace(IMAGE_MARKER, self.image_marker))]))

    def chat_messages(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Returns a conversation in the model's chat format, with the model's image markers.

        Args:
            messages: turns as `format_with_images` takes them.
        """
        return format_with_images(self.processor, self._led(messages), self.image_marker)

    def _led(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Returns messages that begin with the system prompt, if there is one and they have none of their own."""
        system = [turn("system", self.system)] if self.system and messages[0]["role"] != "system" else []
        return [*system, *messages]

    def collate(self, samples: Sequence[Sample], by_frame: bool = False) -> Prompts:
        """Returns the token maps of prompts, and inputs for `generate`, padded on the left and on the CPU.

        Args:
            samples: questions; those about one frame follow one another.
            by_frame: whether the images of a frame are preprocessed once, for all of its questions.
        """
        texts = [self.chat(sample.prompt) for sample in samples]
        if by_frame and (prompts := self._collate_frames(samples, texts)):
            return prompts
        return self.collate_texts(samples, texts)

    def _collate_frames(self, samples: Sequence[Sample], texts: Sequence[str]) -> Prompts | None:
        """Returns prompts that share their frames' images; None where a text's end changes what comes before it."""
        heads, ends = zip(*(text.rsplit(self.image_marker, 1) for text in texts), strict=True)
        names = [(sample.frame or sample.id, sample.cameras, head) for sample, head in zip(samples, heads, strict=True)]
        frames = {name: row for row, name in reversed(list(enumerate(names)))}
        order = sorted(frames, key=frames.__getitem__)
        firsts = [frames[name] for name in order]
        marker, *marked = self.processor.tokenizer(
            [self.image_marker, *(self.image_marker + end for end in ends)], add_special_tokens=False
        )["input_ids"]
        prompts = self.collate_texts([samples[row] for row in firsts], [texts[row] for row in firsts])
        return prompts.asked([order.index(name) for name in names], [ids[len(marker) :] for ids in marked], self.pad)

    def collate_texts(self, samples: Sequence[Sample], texts: Sequence[str]) -> Prompts:
        """Returns prompts that each bring their images, from texts in the model's chat format.

        Args:
            samples: the images of each prompt; all prompts have some, or none has any.
            texts: as `chat` or `chat_messages` returns them.
        """
        pictures = [sample.shown for sample in samples]
        start = self.processor.tokenizer.bos_token
        inputs = self.processor(
            text=list(texts),
            images=[list(shown.values()) for shown in pictures] if any(pictures) else None,
            add_special_tokens=start is None or not texts[0].startswith(start),
            padding=True,
            return_tensors="pt",
            **self.image_options,
        )
        tensors = {name: inputs[name] for name in inputs if isinstance(inputs[name], Tensor)}
        if not any(pictures):
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            return Prompts(tensors, tuple(TokenMap.from_spans({}, length) for length in lengths), ())
        info = self.image_info(inputs, [image.size[::-1] for shown in pictures for image in shown.values()])
        names = [list(shown) for shown in pictures]
        token_maps = locate_batch(inputs["input_ids"], inputs.get("attention_mask"), self.config, names, info)
        divided = [
            sample.mosaic.divide(token_map) if sample.mosaic else token_map
            for sample, token_map in zip(samples, token_maps, strict=True)
        ]
        return Prompts(tensors, tuple(divided), self.family.pixel_inputs, tuple(map(len, names)))

    def image_info(self, inputs: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> ImageInfo:
        """Returns sizes and tiles of a batch's images, as far as token maps need them.

        Args:
            inputs: the processor's outputs.
            sizes: (height, width) of the images in pixels, prompt after prompt.
        """
        return ImageInfo.of_call(inputs)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Checks options of `generate` before a model is loaded.

        Raises:
            InputError: an option does not exist, or has a wrong value.
        """
        if unknown := [name for name in options if not hasattr(GenerationConfig(), name)]:
            raise InputError(f"generation.{unknown[0]}: `generate` has no such option")
        try:
            GenerationConfig(**options)
        except (TypeError, ValueError) as error:
            raise InputError(f"generation: {' '.join(str(error).split())}") from error

    @torch.inference_mode()
    def generate(self, prompts: Prompts, reading: FrameReading | None = None, **options: Any) -> list[Answer]:
        """Answers a batch of prompts.

        Args:
            prompts: the batch.
            reading: what was read of it; nothing by default.
            **options: options of the model's `generate`.
        """
        tokens = self._generated(prompts, reading, **options)
        lengths = self._answer_lengths(tokens)
        return self.read([tuple(ids[:length].tolist()) for ids, length in zip(tokens, lengths, strict=True)])

    def _generated(self, prompts: Prompts, reading: FrameReading | None, **options: Any) -> Tensor:
        """Returns generated tokens [B, T]."""
        config = self.model.generation_config
        is_greedy = reading is not None and can_retire(config, options)
        if reading and reading.is_begun:
            if is_greedy and takes_likeliest(config):
                return reading.generate_greedily(self._ends, options["max_new_tokens"])
            reading.read_questions()
            prompts = prompts.text_alone()
        inputs = self._placed(prompts if reading is None else prompts.without_images())
        if reading and is_greedy:
            return generate_retiring(self.model, inputs, reading.cache, self._ends, reading.keep_rows, **options)
        more = {CACHE: reading.cache} if reading else {}
        return self.model.generate(**inputs, **more, **options)[:, inputs["input_ids"].shape[1] :]

    @torch.inference_mode()
    def prefill(self, prompts: Prompts, **options: Any) -> None:
        """Reads a batch of prompts without answering them.

        Args:
            prompts: the batch.
            **options: options of the model's `generate`, such as the KV cache to fill.
        """
        self.model.generate(**self._placed(prompts), generation_config=GenerationConfig(max_new_tokens=1), **options)

    def read(self, answers: Sequence[tuple[int, ...]]) -> list[Answer]:
        """Decodes generated tokens, the end token included, into answers."""
        texts = self.processor.tokenizer.batch_decode([list(ids) for ids in answers], skip_special_tokens=True)
        return [Answer(text.strip(), ids) for text, ids in zip(texts, answers, strict=True)]

    def _placed(self, prompts: Prompts) -> dict[str, Any]:
        """Returns the inputs on the model's device and in its dtype."""
        return {
            name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in prompts.inputs.items()
        }

    @property
    def _ends(self) -> Tensor:
        """Ids of the tokens that end an answer."""
        end = self.model.generation_config.eos_token_id
        return torch.tensor([end] if isinstance(end, int) else end or [-1], device=self.model.device)

    def _answer_lengths(self, tokens_BT: Tensor) -> list[int]:
        """Returns the number of tokens of each answer, the end token included."""
        is_end_BT = torch.isin(tokens_BT, self._ends)
        return torch.where(is_end_BT.any(dim=1), is_end_BT.int().argmax(dim=1) + 1, tokens_BT.shape[1]).tolist()
