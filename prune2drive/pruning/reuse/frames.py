"""Pruning for questions about the same frames: what they have in common is computed once.

Attention is causal and the images come first. So vision, the layers before a cut and, for methods that do not look at
the question, the kept tokens and the KV cache of everything up to the question are the same for all of them.

Shape suffixes: B batch rows, F frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.reuse.frame_cache import FrameCache
from prune2drive.pruning.reuse.frame_memory import FrameMemory
from prune2drive.pruning.reuse.frame_states import Frames, StateRecorder, StateReplay, StatesWanted, Tensors
from prune2drive.pruning.reuse.padding import PaddingSkip
from prune2drive.pruning.reuse.selection_orders import select_with_orders
from prune2drive.pruning.surgery.early_exit import stop_at
from prune2drive.pruning.surgery.hooks import PruningHooks
from prune2drive.pruning.surgery.prompt import PromptInfo
from prune2drive.pruning.surgery.select import Picks
from prune2drive.pruning.vision import VisionTokens


@contextmanager
def prune_frames(
    frames: Frames, *args: Any, repeats: int = 1, memory: FrameMemory | None = None, **options: Any
) -> Iterator[FrameHooks]:
    """Prunes as `prune` does, with what the questions about a frame have in common computed once.

        with prune_frames(frames, model, pruner, keep, **options) as hooks:
            inputs = behind if hooks.is_begun else prompts
            model.generate(**inputs, past_key_values=hooks.cache)

    Args:
        frames: the frames, and how to read them.
        args: positional arguments of `prune`.
        repeats: how often `generate` repeats each prompt in place, for beams or several samples.
        memory: states and selection orders of frames from earlier runs, which grow.
        options: keyword arguments of `prune`.

    Yields:
        The hooks, with the trace of what is kept of each prompt and the KV cache. `is_begun` says whether the cache
        holds the frames' beginnings, behind which the prompts' own texts are to be read. Where a method looks at the
        question it is empty, and prompts are to be read from the start, but without images.

    Raises:
        InputError: options that cannot be right, here or, as they show, in the model's forward.
    """
    hooks = FrameHooks.of(*args, **options)
    hooks.padding = PaddingSkip()
    hooks.cache, hooks.frames, hooks.memory = FrameCache(len(hooks.decoder.layers)), frames, memory
    hooks.states = memory.states(frames, hooks.wanted) if memory else None
    with ExitStack() as undo:
        if hooks.pruner.traits.shares_picks_per_frame:
            hooks.read_pruned(undo, repeats)
        else:
            hooks.read_states()
            hooks.replay(frames.frame_of, frames.lengths, undo)
            hooks.install(undo)
        yield hooks


class FrameHooks(PruningHooks):
    """The hooks that prune prompts about frames.

    Attributes:
        cache: the KV cache of the prompts.
        padding: leaves out the padding between frames and questions.
        frames: the frames.
        memory: frames from earlier runs; None where there is no such memory.
        states: the frames' states up to the first cut, where they are known.
    """

    cache: FrameCache
    padding: PaddingSkip
    frames: Frames
    memory: FrameMemory | None = None
    states: Sequence[Tensors] | None = None
    shows: Sequence[int] = ()
    is_first_behind = False

    @property
    def wanted(self) -> StatesWanted:
        """The states that the method's first cut needs."""
        return StatesWanted.of(self.pruner)

    @property
    def is_begun(self) -> bool:
        """Whether the KV cache holds the prompts' beginnings."""
        return self.cache.get_seq_length() > 0

    def read_pruned(self, undo: ExitStack, repeats: int) -> None:
        """Reads and prunes each frame's beginning, and fills the KV cache with it, a row for every prompt.

        Args:
            undo: takes back the hooks when it closes.
            repeats: how often each prompt is repeated in place.
        """
        frames = self.frames
        self.info = PromptInfo(token_map=frames.token_maps, sample_ids=frames.names)
        with ExitStack() as first:
            if self.states:
                self.replay(range(len(frames.names)), [len(ids) for ids in frames.ids], first)
            recorder = StateRecorder(self.decoder, self.wanted)
            if self.memory and not self.states:
                recorder.install(first)
            self.install(undo)
            frames.read(with_images=not self.states, past_key_values=self.cache)
        self._remember(recorder)
        self._repeat(repeats)
        self.padding.install(self.decoder, undo)

    def read_states(self) -> None:
        """Reads each frame's beginning up to the first cut, where that is not remembered."""
        if self.states:
            return
        recorder = StateRecorder(self.decoder, self.wanted)
        with ExitStack() as undo:
            recorder.install(undo)
            if self.pruner.traits.needs_vision:
                self.watch_vision(undo)
            with stop_at(self.model, self.wanted.cut):
                self.frames.read(with_images=True, past_key_values=DynamicCache(config=self.decoder.config))
        self.capture.begin()
        self._remember(recorder)

    def replay(self, shows: Sequence[int], lengths: Sequence[int], undo: ExitStack) -> None:
        """Puts the frames' states in place of the beginnings of prompts.

        Args:
            shows: the frame that each prompt begins with.
            lengths: number of positions of each prompt, without padding.
            undo: takes back the hooks when it closes.
        """
        assert self.states is not None
        self.shows = shows
        StateReplay(self.decoder, self.wanted, [self.states[at] for at in shows], lengths).install(undo)

    def select(self, hidden_BPD: Tensor, pools: Sequence[Pool], sizes: Sequence[int], context: Context) -> list[Picks]:
        if self.shows and self.pruner.traits.needs_vision:
            context = replace(context, vision=partial(self._vision_of_rows, len(hidden_BPD)))
        if self.memory is None:
            return super().select(hidden_BPD, pools, sizes, context)
        return select_with_orders(self.memory.orders, self.pruner, hidden_BPD, pools, sizes, context)

    def _remember(self, recorder: StateRecorder) -> None:
        """Takes what was recorded as the frames' states, and remembers it."""
        if self.states or not recorder.recorded:
            return
        frames = self.frames
        recorded = recorder.of_prompts([len(ids) for ids in frames.ids])
        if self.pruner.traits.needs_vision:
            vision = self.capture.vision_tokens(frames.token_maps)
            for states, received_V, features_VD in zip(recorded, vision.received, vision.features, strict=True):
                states |= {"received": received_V, "features": features_VD}
        self.states = recorded
        if self.memory:
            self.memory.remember(frames, self.wanted, self.states)

    def _vision_of_rows(self, rows: int) -> VisionTokens:
        """Returns what the vision tower made of the frame that each batch row shows."""
        assert self.states is not None
        states = [self.states[self.shows[row * len(self.shows) // rows]] for row in range(rows)]
        return VisionTokens([each["received"] for each in states], [each["features"] for each in states])

    def _repeat(self, repeats: int) -> None:
        """Turns rows of frames into rows of prompts."""
        frames = self.frames
        rows = torch.tensor(frames.frame_of).repeat_interleave(repeats)
        self.cache.reorder_cache(rows)  # type: ignore[arg-type]  # wants a LongTensor
        self.keep_rows(rows, repeats)
        self.trace.repeat(rows.tolist())
        for row, kept_K in enumerate(self.trace.positions):
            begun, length = len(frames.ids[frames.frame_of[row // repeats]]), frames.lengths[row // repeats]
            self.trace.positions[row] = torch.cat([kept_K, torch.arange(begun, length)])
        self.is_first_behind = True

    def keep_rows(self, rows: Tensor, repeats: int = 1) -> None:
        """Follows a batch of whose rows only some go on, or go on several times; the trace stays as it is.

        Args:
            rows: the rows that go on.
            repeats: how often in place.
        """
        self.cuts = [cut.of_rows(rows) for cut in self.cuts]
        base = self.model.base_model
        if getattr(base, "rope_deltas", None) is not None:  # from which multimodal rotary positions count on
            base.rope_deltas = base.rope_deltas[rows[::repeats].to(base.rope_deltas.device)]

    def _make_cut(self, index: int, module: nn.Module, hidden_BPD: Tensor, given: Mapping[str, Any]) -> Tensor:
        states_BKD = super()._make_cut(index, module, hidden_BPD, given)
        if index == 0:
            self.cache.dropped = hidden_BPD.shape[1] - states_BKD.shape[1]
        return states_BKD

    def _continue(self, width: int) -> None:
        mask = self.step.mask
        self.padding.expect(None if mask is None or not self.is_first_behind else mask[:, -width:].bool())
        if not self.is_first_behind:
            super()._continue(width)
        self.is_first_behind = False  # whose padding would look like positions that were seen before
