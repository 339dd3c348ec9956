"""Pruning for questions about the same frames: what they have in common is computed once.

Attention is causal and the images come first. So vision, the layers before a cut and, for methods that do not look at
the question, the kept tokens and the KV cache of everything up to the question are the same for all of them.

Shape suffixes: B batch rows, F frames, P prompt positions (padded), K positions of a layer, Q positions of a frame's
questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from prune2drive.families.kv_cache import CACHE
from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.reuse.frame_cache import FrameCache
from prune2drive.pruning.reuse.frame_memory import FrameMemory
from prune2drive.pruning.reuse.frame_states import Frames, StateRecorder, StateReplay, StatesWanted, Tensors
from prune2drive.pruning.reuse.packing import PackedReader, generate_greedily
from prune2drive.pruning.reuse.selection_orders import select_with_orders
from prune2drive.pruning.surgery.cut import Cut
from prune2drive.pruning.surgery.early_exit import stop_at
from prune2drive.pruning.surgery.hooks import PruningHooks
from prune2drive.pruning.surgery.patch import Args, Kwargs
from prune2drive.pruning.surgery.prompt import PromptInfo
from prune2drive.pruning.surgery.select import Picks
from prune2drive.pruning.vision import VisionTokens


@contextmanager
def prune_frames(
    frames: Frames, *args: Any, repeats: int = 1, memory: FrameMemory | None = None, **options: Any
) -> Iterator[FrameHooks]:
    """Prunes as `prune` does, with what the questions about a frame have in common computed once.

        with prune_frames(frames, model, pruner, keep, **options) as hooks:
            hooks.read_questions()
            model.generate(**prompts, past_key_values=hooks.cache)

    Args:
        frames: the frames, and how to read them.
        args: positional arguments of `prune`.
        repeats: how often `generate` repeats each prompt in place, for beams or several samples.
        memory: states and selection orders of frames from earlier runs, which grow.
        options: keyword arguments of `prune`.

    Yields:
        The hooks, with the trace of what is kept of each prompt and the KV cache. After `read_questions` the cache
        holds all of the prompts but each one's last token; where a method looks at the question it is empty, and
        prompts are to be read from the start, but without images (`is_begun` says which).

    Raises:
        InputError: options that cannot be right, here or, as they show, in the model's forward.
    """
    hooks = FrameHooks.of(*args, **options)
    hooks.cache, hooks.frames, hooks.repeats = FrameCache(len(hooks.decoder.layers)), frames, repeats
    hooks.memory = memory
    hooks.states = memory.states(frames, hooks.wanted) if memory else None
    with ExitStack() as undo:
        if hooks.pruner.traits.shares_picks_per_frame:
            hooks.read_pruned(undo)
        else:
            hooks.read_states()
            hooks.replay(frames.frame_of, frames.lengths, undo)
            hooks.install(undo)
        yield hooks


class FrameHooks(PruningHooks):
    """The hooks that prune prompts about frames.

    Attributes:
        cache: the KV cache of the prompts.
        frames: the frames.
        repeats: how often `generate` repeats each prompt in place.
        memory: frames from earlier runs; None where there is no such memory.
        states: the frames' states up to the first cut, where they are known.
    """

    cache: FrameCache
    frames: Frames
    repeats: int
    memory: FrameMemory | None = None
    states: Sequence[Tensors] | None = None
    shows: Sequence[int] = ()
    packed: PackedReader | None = None

    @property
    def wanted(self) -> StatesWanted:
        """The states that the method's first cut needs."""
        return StatesWanted.of(self.pruner)

    @property
    def is_begun(self) -> bool:
        """Whether the KV cache holds the frames' beginnings."""
        return self.packed is not None

    def read_pruned(self, undo: ExitStack) -> None:
        """Reads and prunes each frame's beginning.

        Args:
            undo: takes back the hooks when it closes.
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
            frames.read(with_images=not self.states, **{CACHE: self.cache})
        self._remember(recorder)
        self.trace.repeat(self._rows.tolist())
        for row, kept_K in enumerate(self.trace.positions):
            asked = row // self.repeats
            begun, length = len(frames.ids[frames.frame_of[asked]]), frames.lengths[asked]
            self.trace.positions[row] = torch.cat([kept_K, torch.arange(begun, length)])
        prompt = self.prompt
        assert prompt is not None
        real_FP = torch.ones(len(prompt.maps), prompt.length, dtype=torch.bool)
        real_FP = real_FP if prompt.mask_BP is None else prompt.mask_BP
        delta_F = getattr(self.model.base_model, "rope_deltas", None)
        self.packed = PackedReader(self.decoder, self.cache, real_FP, self.cuts, frames.frame_of, delta_F)
        self.packed.install(undo)

    def generate_greedily(self, ends: Tensor, max_new_tokens: int) -> Tensor:
        """Answers the prompts behind their frames' beginnings, each until it ends.

        Args:
            ends: ids of tokens that end an answer.
            max_new_tokens: most tokens of an answer.

        Returns:
            Generated tokens [B, T], each row up to its end token.
        """
        assert self.packed is not None
        drafts = self.memory.drafts(self.frames) if self.memory else None
        head = self.model.get_output_embeddings()
        answers = generate_greedily(self.packed, head, self.frames.texts, ends, max_new_tokens, drafts)
        if self.memory:
            self.memory.remember_answers(self.frames, answers)
        return pad_sequence(list(map(torch.tensor, answers)), batch_first=True)

    def read_questions(self) -> None:
        """Reads the prompts but for each one's last token, and gives every prompt a row of the KV cache."""
        packed, prompt = self.packed, self.prompt
        assert packed is not None and prompt is not None
        if texts := {row: ids[:-1] for row, ids in enumerate(self.frames.texts) if len(ids) > 1}:
            packed.read(texts)
        full = packed.places(packed.real_FP)
        after = {cut.layer: packed.places(cut.real_BK) for cut in self.cuts}
        cuts = map(self._cut_before, range(len(self.cache.layers)))
        at = [self._repeated((after[cut.layer] if cut else full)[0]) for cut in cuts]
        self.cache.rearrange(self._rows, at)
        self.cuts = [self._of_prompts(cut, *map(self._repeated, after[cut.layer])) for cut in self.cuts]
        self.prompt = replace(prompt, length=full[0].shape[1])
        self.cache.dropped = self.prompt.length - self.cache.get_seq_length(0)
        self._keep_rotary(self._rows[:: self.repeats])

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
                self.frames.read(with_images=True, **{CACHE: DynamicCache(config=self.decoder.config)})
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
        if self.wanted.vision:
            vision = self.capture.vision_tokens(frames.token_maps)
            for row, states in enumerate(recorded):
                states |= {f"vision.{name}": getattr(vision, name)[row] for name in self.wanted.vision}
        self.states = recorded
        if self.memory:
            self.memory.remember(frames, self.wanted, self.states)

    def _vision_of_rows(self, rows: int) -> VisionTokens:
        """Returns what the vision tower made of the frame that each batch row shows."""
        assert self.states is not None
        states = [self.states[self.shows[row * len(self.shows) // rows]] for row in range(rows)]
        return VisionTokens(**{name: [each[f"vision.{name}"] for each in states] for name in self.wanted.vision})

    @property
    def _rows(self) -> Tensor:
        """The frame of each row that `generate` makes of the prompts."""
        return torch.tensor(self.frames.frame_of).repeat_interleave(self.repeats)

    def _of_prompts(self, cut: Cut, at_BL: Tensor, real_BL: Tensor) -> Cut:
        """Returns the cut of frames as one of the rows of prompts.

        Args:
            cut: the cut.
            at_BL: the positions of each row, as places in the row of its frame.
            real_BL: where they are real.
        """
        device, of_rows = cut.real_BK.device, cut.of_rows(self._rows)
        at, real, log_sizes = at_BL.to(device), real_BL.to(device), of_rows.log_sizes_BK
        if log_sizes is not None:
            more = int(at.max()) + 1 - log_sizes.shape[1]
            log_sizes = nn.functional.pad(log_sizes, (0, max(0, more))).gather(1, at)
        return replace(of_rows, kept_BK=at, real_BK=real, is_ragged=not real.all(), log_sizes_BK=log_sizes)

    def _repeated(self, of_prompts: Tensor) -> Tensor:
        return of_prompts.repeat_interleave(self.repeats, dim=0)

    def keep_rows(self, rows: Tensor) -> None:
        """Follows a batch of whose rows only some go on; the trace stays as it is.

        Args:
            rows: the rows that go on.
        """
        self.cuts = [cut.of_rows(rows) for cut in self.cuts]
        self._keep_rotary(rows)

    def _keep_rotary(self, rows: Tensor) -> None:
        """Keeps, for some rows, from where multimodal rotary positions count on."""
        base = self.model.base_model
        if (delta := getattr(base, "rope_deltas", None)) is not None:
            base.rope_deltas = delta[rows.to(delta.device)]

    def _make_cut(self, index: int, module: nn.Module, hidden_BPD: Tensor, given: Mapping[str, Any]) -> Tensor:
        states_BKD = super()._make_cut(index, module, hidden_BPD, given)
        if index == 0:
            self.cache.dropped = hidden_BPD.shape[1] - states_BKD.shape[1]
        return states_BKD

    def _on_decoder(self, module: nn.Module, args: Args, kwargs: Kwargs) -> None:
        if self.packed and self.packed.step:
            self.step = self.packed.step
        else:
            super()._on_decoder(module, args, kwargs)
