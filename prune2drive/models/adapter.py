"""The adapter: what the evaluation loop knows of a model family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import GenerationConfig

from prune2drive.errors import InputError
from prune2drive.families import family_of
from prune2drive.families.base import Family, ImageInfo
from prune2drive.families.locate import locate_batch
from prune2drive.models.draft_verification import check_drafts
from prune2drive.models.prompts import Answer, Prompts
from prune2drive.sample import IMAGE_MARKER, Sample


class Adapter(ABC):
    """Makes prompts of samples and answers of prompts, for one model family.

    Building an adapter reads configuration and processor only, so that what is wrong shows before the
    weights are loaded; `model` loads them on first use.

    Args:
        config: the model's configuration.
        processor: its processor; images are passed nested, one list a sample.
    """

    system: str | None = None
    """The system prompt; None leaves it to the chat template."""
    is_noise: ClassVar[bool] = False
    """True for a model with random weights, whose answers mean nothing."""
    cpu_threads: ClassVar[int | None] = None
    """For a model so small that threads waiting for each other cost more than they bring."""

    def __init__(self, config: Any, processor: Any) -> None:
        self.config, self.processor = config, processor
        self.processor.tokenizer.padding_side = "left"

    @abstractmethod
    def load(self) -> Any:
        """The model with its weights, ready to generate.

        Raises:
            InputError: weights that are missing or damaged.
        """

    @cached_property
    def model(self) -> Any:
        return self.load().eval()

    @property
    def pad(self) -> int:
        """The id that fills up shorter prompts; nothing reads it."""
        tokenizer = self.processor.tokenizer
        return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    @property
    def text_config(self) -> Any:
        return self.config.get_text_config()

    @property
    def family(self) -> Family:
        """What the model looks like inside."""
        return family_of(self.config)

    @property
    def vision_modules(self) -> list[nn.Module]:
        """The modules that turn pixels into visual tokens: tower and projector."""
        return [getattr(self.model.base_model, name) for name in self.family.vision_modules]

    @property
    def image_marker(self) -> str:
        """What stands for an image in the chat; the processor replaces it by the image's tokens."""
        return self.processor.image_token

    @property
    def image_options(self) -> dict[str, Any]:
        """How the processor treats images, where the family leaves a choice."""
        return {}

    def chat(self, prompt: str) -> str:
        """The prompt in the model's chat format, its image markers in place."""
        turns = {"system": self.system, "user": prompt.replace(IMAGE_MARKER, self.image_marker)}
        messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns.items() if text]
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def collate(self, samples: Sequence[Sample]) -> Prompts:
        """Inputs for `generate` on the CPU, padded on the left, and their token maps."""
        pictures = [_pictures(sample) for sample in samples]
        texts = [self.chat(sample.prompt) for sample in samples]
        start = self.processor.tokenizer.bos_token
        inputs = self.processor(
            text=texts,
            images=[list(shown.values()) for shown in pictures],
            add_special_tokens=start is None or not texts[0].startswith(start),
            padding=True,
            return_tensors="pt",
            **self.image_options,
        )
        info = self.image_info(inputs, [image.size[::-1] for shown in pictures for image in shown.values()])
        names = [list(shown) for shown in pictures]
        token_maps = locate_batch(inputs["input_ids"], inputs.get("attention_mask"), self.config, names, info)
        divided = [
            sample.mosaic.divide(token_map) if sample.mosaic else token_map
            for sample, token_map in zip(samples, token_maps, strict=True)
        ]
        tensors = {name: inputs[name] for name in inputs if isinstance(inputs[name], Tensor)}
        return Prompts(tensors, tuple(divided), self.family.pixel_inputs)

    def image_info(self, inputs: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> ImageInfo:
        """What is known of a batch's images.

        Args:
            inputs: what the processor made of them.
            sizes: their (height, width) in pixels, prompt after prompt.
        """
        names = ("batch_num_images", "image_sizes", "image_grid_thw")
        return ImageInfo(*(inputs[name].tolist() if name in inputs else None for name in names))

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Looks at options of `generate` before there is a model.

        Raises:
            InputError: one that does not exist, or a value that it cannot have.
        """
        if unknown := [name for name in options if not hasattr(GenerationConfig(), name)]:
            raise InputError(f"generation.{unknown[0]}: `generate` has no such option")
        try:
            GenerationConfig(**options)
        except (TypeError, ValueError) as error:
            raise InputError(f"generation: {' '.join(str(error).split())}") from error

    @torch.inference_mode()
    def generate(self, prompts: Prompts, **options: Any) -> list[Answer]:
        """Answers a batch; options go to the model's `generate`."""
        inputs = self._placed(prompts)
        tokens = self.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]
        lengths = self._answer_lengths(tokens)
        return self.read([tuple(ids[:length].tolist()) for ids, length in zip(tokens, lengths, strict=True)])

    @torch.inference_mode()
    def confirms(
        self, prompts: Prompts, drafts: Sequence[Sequence[int]], are_read: bool = True, **options: Any
    ) -> list[bool]:
        """Whether `generate` would answer each prompt with these tokens; for greedy options.

        Costs little more than reading the prompt. Positions are computed together that `generate` computes one by one,
        so that a tie within the rounding error of the model's dtype may fall otherwise.

        Args:
            prompts: as they are or, where drafts are to be read with them, each followed by its draft but for the last
                token.
            drafts: answers, the end token included.
            are_read: whether the prompts are followed by their drafts.
            options: of `generate`.
        """
        inputs = self._placed(prompts)
        drafted = {"custom_generate": check_drafts, "drafts": drafts, "are_read": are_read}
        return self.model.generate(**inputs, **options, **drafted).tolist()

    def read(self, answers: Sequence[tuple[int, ...]]) -> list[Answer]:
        """Generated tokens as answers."""
        texts = self.processor.tokenizer.batch_decode([list(ids) for ids in answers], skip_special_tokens=True)
        return [Answer(text.strip(), ids) for text, ids in zip(texts, answers, strict=True)]

    def _placed(self, prompts: Prompts) -> dict[str, Any]:
        return {
            name: value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)
            for name, value in prompts.inputs.items()
        }

    def _answer_lengths(self, tokens_BT: Tensor) -> list[int]:
        """Generated tokens up to and including the end token."""
        end = self.model.generation_config.eos_token_id
        ends = torch.tensor([end] if isinstance(end, int) else end or [-1], device=tokens_BT.device)
        ended_BT = torch.isin(tokens_BT, ends)
        first_B = torch.where(ended_BT.any(dim=1), ended_BT.int().argmax(dim=1) + 1, tokens_BT.shape[1])
        return first_B.tolist()


def _pictures(sample: Sample) -> Mapping[str, Image.Image]:
    """What the prompt shows: the cameras' images, or one picture of all of them."""
    return {"mosaic": sample.mosaic.stitch(sample.images)} if sample.mosaic else sample.images
