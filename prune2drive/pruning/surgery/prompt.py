"""The batch of prompts being pruned: which row shows which cameras at which positions.

Shape suffixes: B batch rows, P prompt positions (padded), N tokens of a pool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from prune2drive.cameras import camera_of
from prune2drive.errors import InputError
from prune2drive.families.base import ImageInfo
from prune2drive.families.locate import locate_batch
from prune2drive.pruning.pool import Pool
from prune2drive.token_map import TokenMap

T = TypeVar("T")

POOL_OF: dict[str, Callable[[str], str]] = {"per_camera": str, "over_time": camera_of, "global": lambda camera: ""}
"""Scope -> the name that cameras whose tokens are one pool have in common."""


@dataclass(frozen=True)
class PromptInfo:
    """What the caller of `prune` says about its prompts; each entry is None where nothing was said.

    Args:
        cameras: names of the prompts' images in order, for all prompts or for each.
        token_map: where visual tokens lie, for all prompts or for each.
        sample_ids: an id for each prompt.
        questions: what each prompt asks, in words.
    """

    cameras: Sequence[str] | Sequence[Sequence[str]] | None = None
    token_map: TokenMap | Sequence[TokenMap] | None = None
    sample_ids: Sequence[str] | None = None
    questions: Sequence[str] | None = None

    @property
    def cameras_of_prompts(self) -> list[Sequence[str]]:
        """The camera names of each prompt, one entry where all prompts have the same; empty where none were given."""
        if not self.cameras:
            return []
        named: Any = [self.cameras] if isinstance(self.cameras[0], str) else self.cameras
        return list(named)

    def cameras_of_images(self, count: int) -> list[Sequence[str]]:
        """Returns the cameras of each prompt whose images, `count` in all, are encoded.

        Raises:
            InputError: the cameras that were named are not as many.
        """
        maps = [self.token_map] if isinstance(self.token_map, TokenMap) else self.token_map
        prompts: list[Sequence[str]] = [each.cameras for each in maps] if maps else self.cameras_of_prompts
        prompts = prompts or [[f"image_{index}" for index in range(count)]]
        if len(prompts) == 1:
            prompts = prompts * (count // len(prompts[0]))
        if (named := sum(map(len, prompts))) != count:
            raise InputError(f"{count} images (or tiles of images) are encoded, and {named} cameras are named")
        return prompts

    def token_maps(
        self, rows: int, ids_BP: Tensor | None, mask_BP: Tensor | None, config: Any, images: ImageInfo
    ) -> list[TokenMap]:
        """Returns the TokenMap of each batch row: the caller's, or the one found from the input ids.

        Raises:
            InputError: no token map and no input ids, or ids that do not fit the model's configuration.
        """
        if self.token_map is not None:
            given = [self.token_map] if isinstance(self.token_map, TokenMap) else self.token_map
            return _repeat_for_beams(given, rows, "token_map")
        if ids_BP is None:
            raise InputError("inputs_embeds do not say where the visual tokens are: pass token_map=")
        named = self.cameras_of_prompts
        cameras = _repeat_for_beams(named, rows, "cameras") if named else None
        return locate_batch(ids_BP, mask_BP, config, cameras, images)

    def row_ids(self, rows: int, ids_BP: Tensor | None, mask_BP: Tensor | None) -> list[str]:
        """Returns an id for each batch row, independent of its place: the caller's, or a hash of the prompt's text."""
        if self.sample_ids is not None:
            return _repeat_for_beams(self.sample_ids, rows, "sample_ids")
        if ids_BP is None:
            return [""] * rows
        texts = [ids if mask_BP is None else ids[mask_BP[row]] for row, ids in enumerate(ids_BP)]
        return [hashlib.blake2b(text.cpu().numpy().tobytes(), digest_size=8).hexdigest() for text in texts]

    def row_questions(self, rows: int) -> list[str] | None:
        """Returns each batch row's question in words, where the caller gave them."""
        return None if self.questions is None else _repeat_for_beams(self.questions, rows, "questions")


def _repeat_for_beams(given: Sequence[T], rows: int, name: str) -> list[T]:
    """Returns one entry a batch row: beams repeat each prompt in place."""
    if len(given) == 0 or rows % len(given):
        raise InputError(f"{name} has {len(given)} entries for a batch of {rows}")
    return [given[row * len(given) // rows] for row in range(rows)]


@dataclass
class Prompt:
    """A batch of prompts.

    Args:
        length: P, padding included.
        maps: each row's TokenMap, in coordinates without padding.
        starts: batch position at which each row's TokenMap begins.
        mask_BP: True at real positions; None where all are.
        sample_ids: each row's id.
        questions: each row's question in words; None where the caller gave none.
    """

    length: int
    maps: list[TokenMap]
    starts: list[int]
    mask_BP: Tensor | None
    sample_ids: list[str]
    questions: list[str] | None = None

    @classmethod
    def build(
        cls,
        maps: Sequence[TokenMap],
        length: int,
        mask_BP: Tensor | None,
        sample_ids: Sequence[str],
        questions: list[str] | None = None,
    ) -> Prompt:
        """Places each row's TokenMap in the padded batch.

        Raises:
            InputError: padding on the right, a map made for a prompt of another length, or visual tokens under the
                padding.
        """
        if mask_BP is not None and not mask_BP[:, -1].all():
            raise InputError("the batch is padded on the right: pad it on the left (padding_side='left')")
        starts = []
        for row, token_map in enumerate(maps):
            padding = 0 if mask_BP is None else int(mask_BP[row].int().argmax())
            if token_map.length not in (length, length - padding):
                raise InputError(
                    f"a prompt of {length - padding} positions has a token_map for {token_map.length}: pruning needs "
                    "the whole prompt in one forward pass (no chunked prefill) and a token_map made for it"
                )
            starts.append(length - token_map.length)
            visual = (token_map.view_P >= 0).nonzero().flatten() + starts[-1]
            if mask_BP is not None and not mask_BP[row, visual.to(mask_BP.device)].all():
                raise InputError(f"row {row}: token_map places visual tokens under the padding")
        return cls(length, list(maps), starts, mask_BP, list(sample_ids), questions)

    def pools(self, scope: str) -> list[Pool]:
        """Returns the pools of candidates: one a view, a camera with all its times, or a sample, as `scope` says."""
        pools = []
        for row, (token_map, start) in enumerate(zip(self.maps, self.starts, strict=True)):
            groups: dict[str, list[str]] = {}
            for camera in token_map.cameras:
                groups.setdefault(POOL_OF[scope](camera), []).append(camera)
            for cameras in map(tuple, groups.values()):
                at_N = torch.cat([token_map.positions(camera) for camera in cameras]) + start
                every_N = torch.arange(len(at_N))
                pools.append(Pool(self.sample_ids[row], cameras, row, at_N, token_map, every_N))
        return pools

    @cached_property
    def question_BP(self) -> Tensor:
        """True at the text after each row's last visual token; [B, P]."""
        rows = zip(self.maps, self.starts, strict=True)
        last = [int((token_map.view_P >= 0).nonzero().max()) + start for token_map, start in rows]
        return torch.arange(self.length) > torch.tensor(last)[:, None]
