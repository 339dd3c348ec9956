"""What a search remembers of frames from one run to the next: states before a cut, selection orders and answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from prune2drive.pruning.base import Pruner
from prune2drive.pruning.reuse.frame_states import Frames, StatesWanted, Tensors
from prune2drive.pruning.reuse.prefix_store import PrefixStore
from prune2drive.pruning.reuse.selection_orders import Orders


@dataclass
class FrameMemory:
    """Frames as far as no keep ratio changes them, for one model and one way of showing images.

    Args:
        store: the states of frames.
        about: identifies model and dataset.
        orders: selection orders.
        answers: token ids of the latest answer to each prompt, a draft of the next: few ratios change an answer.
    """

    store: PrefixStore
    about: str
    orders: Orders = field(default_factory=dict)
    answers: dict[bytes, Sequence[int]] = field(default_factory=dict)

    def states(self, frames: Frames, wanted: StatesWanted) -> list[Tensors] | None:
        """Returns the states of frames; None where some are not remembered."""
        states = [self.store.get(key) for key in self._keys(frames, wanted)]
        known = [each for each in states if each is not None]
        return known if len(known) == len(states) else None

    def knows(self, frames: Frames, pruner: Pruner) -> bool:
        """Returns whether the states that a method needs of frames are all remembered."""
        return self.states(frames, StatesWanted.of(pruner)) is not None

    def remember(self, frames: Frames, wanted: StatesWanted, states: Sequence[Tensors]) -> None:
        """Remembers the states of frames, as far as there is room."""
        for key, tensors in zip(self._keys(frames, wanted), states, strict=True):
            self.store.put(key, {name: part.to("cpu", copy=True).contiguous() for name, part in tensors.items()})

    def drafts(self, frames: Frames) -> list[Sequence[int]]:
        """Returns the latest answer to each prompt about frames; an empty one where none is remembered."""
        return [self.answers.get(key, ()) for key in self._prompts(frames)]

    def remember_answers(self, frames: Frames, answers: Sequence[Sequence[int]]) -> None:
        """Remembers the answer to each prompt about frames."""
        self.answers |= zip(self._prompts(frames), answers, strict=True)

    def _prompts(self, frames: Frames) -> list[bytes]:
        beginnings = self._hashes(frames, self.about)
        return [
            beginnings[at].digest() + ids.cpu().numpy().tobytes()
            for at, ids in zip(frames.frame_of, frames.texts, strict=True)
        ]

    def _keys(self, frames: Frames, wanted: StatesWanted) -> list[str]:
        return [beginning.hexdigest() for beginning in self._hashes(frames, f"{self.about}/{wanted}")]

    def _hashes(self, frames: Frames, about: str) -> list[hashlib.blake2b]:
        """Returns a hash of each frame's name and beginning."""
        texts = [f"{about}/{name}/".encode() for name in frames.names]
        parts = zip(texts, frames.ids, strict=True)
        return [hashlib.blake2b(text + ids.cpu().numpy().tobytes(), digest_size=16) for text, ids in parts]


def fingerprint(model: nn.Module, samples: int = 16) -> str:
    """Returns a hash of some values of every weight, which tells models apart."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weights in model.named_parameters():
        digest.update(f"{name}{tuple(weights.shape)}{weights.dtype}".encode())
        if not weights.is_meta:
            some = weights.detach().flatten()[:: max(1, weights.numel() // samples)]
            digest.update(some.float().cpu().numpy().tobytes())
    return digest.hexdigest()
