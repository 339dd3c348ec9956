"""Prompts as a model reads them, and its answers.

Shape suffixes: B batch rows, F frames, P prompt positions (padded), T positions behind the shared beginnings (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.token_map import TokenMap


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts as the model reads it.

    Args:
        inputs: keyword arguments of `generate`; one row a prompt. They hold pixels where `frames` is None.
        token_maps: where the visual tokens of each prompt lie.
        pixel_inputs: names of the inputs that hold pixels.
        image_counts: number of images of each prompt.
        frames: the first prompt of each frame, with the frame's pixels; None where every prompt brings its own.
        frame_of: index into `frames` of each prompt's frame.
        shared: positions that the prompts of each frame have in common, at most all but a prompt's last.
    """

    inputs: dict[str, Any]
    token_maps: tuple[TokenMap, ...]
    pixel_inputs: tuple[str, ...] = ("pixel_values",)
    image_counts: tuple[int, ...] = ()
    frames: Prompts | None = None
    frame_of: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()

    def to(self, device: torch.device | str) -> Prompts:
        """Returns the batch with its inputs on a device."""
        inputs = {name: value.to(device) for name, value in self.inputs.items()}
        return replace(self, inputs=inputs, frames=self.frames and self.frames.to(device))

    @property
    def with_images(self) -> Prompts:
        """The prompts that bring the images: the first one of each frame, or all."""
        return self.frames or self

    def without_images(self) -> Prompts:
        """Returns the batch without pixels, for a model whose image features are known."""
        inputs = {name: self.inputs[name] for name in self.inputs if name not in self.pixel_inputs}
        return replace(self, inputs=inputs, frames=self.frames and self.frames.without_images())

    def asked(self, frame_of: Sequence[int], endings: Sequence[Sequence[int]], pad: int) -> Prompts | None:
        """Returns prompts that each ask another question about one of this batch's frames.

        Args:
            frame_of: index of each new prompt's frame, in this batch's order; a frame's own prompt is its first.
            endings: token ids of each new prompt behind its last image.
            pad: token id of the padding.

        Returns:
            The new batch; None where a frame's own prompt does not end with its ending, in whose place others could be
            put.
        """
        firsts = [frame_of.index(frame) for frame in range(len(self.token_maps))]
        own = [ids.tolist() for ids in self.own_ids]
        fits = (ids[len(ids) - len(endings[first]) :] == endings[first] for ids, first in zip(own, firsts, strict=True))
        if not all(endings) or not all(fits):
            return None
        lengths = [len(own[frame]) - len(endings[firsts[frame]]) for frame in frame_of]
        of_frame = [
            [ids for ids, of in zip(endings, frame_of, strict=True) if of == frame] for frame in range(len(own))
        ]
        common = [min(_shared_length(texts), *(len(ids) - 1 for ids in texts)) for texts in of_frame]
        shared = [lengths[first] + count for first, count in zip(firsts, common, strict=True)]
        asked = self._rearranged(frame_of, lengths, endings, pad)
        return replace(asked, frames=self, frame_of=tuple(frame_of), shared=tuple(shared))

    def beginnings(self, pad: int) -> Prompts:
        """Returns what the prompts of each frame have in common, one row a frame, with the frame's pixels."""
        frames = self.with_images
        rows = range(len(frames.token_maps))
        return frames._rearranged(rows, self.shared, [()] * len(rows), pad)

    def behind(self, beginnings: Prompts) -> list[Tensor]:
        """Returns the token ids of each prompt behind what `beginnings` returned."""
        return [own[beginnings.lengths[of] :] for own, of in zip(self.own_ids, self.frame_of, strict=True)]

    def text_alone(self) -> Prompts:
        """Returns the batch for a model that has seen the images: token ids and padding mask."""
        inputs = {name: self.inputs[name] for name in ("input_ids", "attention_mask")}
        return replace(self, inputs=inputs, frames=None, frame_of=(), shared=())

    @property
    def own_ids(self) -> list[Tensor]:
        """Token ids of each prompt, without padding."""
        return self._unpadded("input_ids")

    @property
    def lengths(self) -> list[int]:
        """Number of positions of each prompt, without padding."""
        return [token_map.length for token_map in self.token_maps]

    def _rearranged(self, rows: Sequence[int], lengths: Sequence[int], endings: Sequence[Any], pad: int) -> Prompts:
        """Returns the first positions of some rows, each followed by other text; pixels only where rows are the same.

        Args:
            rows: row of this batch that each new prompt begins as.
            lengths: how many of its positions are taken.
            endings: token ids that follow.
            pad: token id of the padding.
        """
        inputs = {}
        for name, value in self.inputs.items():
            if value.shape == self.inputs["input_ids"].shape:
                own = self._unpadded(name)
                parts = [
                    torch.cat([own[row][:length], own[row].new_tensor(_of_text(name, ids))])
                    for row, length, ids in zip(rows, lengths, endings, strict=True)
                ]
                inputs[name] = _padded(name, parts, pad)
            elif list(rows) == list(range(len(self.token_maps))):
                inputs[name] = value
            elif name not in self.pixel_inputs:
                counts = [1] * len(value) if len(value) == len(self.token_maps) else list(self.image_counts)
                of_rows = value.split(counts)
                inputs[name] = torch.cat([of_rows[row] for row in rows])
        maps = tuple(
            self.token_maps[row].of_length(length + len(ids))
            for row, length, ids in zip(rows, lengths, endings, strict=True)
        )
        return Prompts(inputs, maps, self.pixel_inputs, tuple(self.image_counts[row] for row in rows))

    def _unpadded(self, name: str) -> list[Tensor]:
        """Returns the rows of an input without padding."""
        return [row_P[len(row_P) - length :] for row_P, length in zip(self.inputs[name], self.lengths, strict=True)]


@dataclass(frozen=True)
class Answer:
    """What the model generated for one prompt.

    Args:
        text: the answer in words.
        ids: generated tokens, the end token included.
    """

    text: str
    ids: tuple[int, ...]

    @property
    def new_tokens(self) -> int:
        """Number of generated tokens, the end token included."""
        return len(self.ids)


def _of_text(name: str, ids: Sequence[int]) -> list[int]:
    """Returns the values of a model input at positions of text.

    Args:
        name: the input's name.
        ids: token ids of the text.
    """
    return {"input_ids": list(ids), "attention_mask": [1] * len(ids)}.get(name, [0] * len(ids))


def _padded(name: str, rows: list[Tensor], pad: int) -> Tensor:
    """Pads the rows of a model input on the left; [B, P]."""
    filler = pad if name == "input_ids" else 0
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler, padding_side="left")


def _shared_length(texts: Sequence[Sequence[int]]) -> int:
    """Returns how many first token ids all texts have in common."""
    return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*texts, strict=False)))
