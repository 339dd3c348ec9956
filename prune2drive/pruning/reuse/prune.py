"""Pruning with kept selections, and with frames that several prompts of a batch share read once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prune2drive.pruning.context import Context
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.reuse.selection_cache import SelectionCache
from prune2drive.pruning.reuse.shared_prefix import SharedPrefixForward, split_shared_prefix
from prune2drive.pruning.surgery.cut import Cut, gather, pad_left
from prune2drive.pruning.surgery.hooks import PruningHooks
from prune2drive.pruning.surgery.patch import override_method
from prune2drive.pruning.surgery.select import Picks
from prune2drive.pruning.surgery.trace import Trace


class ReusingHooks(PruningHooks):
    """Hooks that take selections from a cache, and read prefixes that batch rows share once."""

    selections = SelectionCache()
    shared: SharedPrefixForward | None = None

    def install(self, undo: ExitStack) -> None:
        super().install(undo)
        for index, layer in enumerate(self.decoder.layers):
            if self.pruner.cuts and index >= self.pruner.cuts[0]:
                override_method(undo, layer, "forward", partial(self._on_layer_forward, index))

    def _begin(self, rows: int, length: int, recomputes: bool) -> None:
        super()._begin(rows, length, recomputes)
        self.shared = None

    def _on_layer_forward(self, index: int, original: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.step.is_prefill and self.shared:
            return self.shared(original, index, hidden, *args, **kwargs)
        return original(hidden, *args, **kwargs)

    def select(self, hidden_BPD: Tensor, pools: Sequence[Pool], sizes: Sequence[int], context: Context) -> list[Picks]:
        return self.selections.select(self.pruner, hidden_BPD, pools, sizes, context)

    def apply(
        self, index: int, hidden_BPD: Tensor, real_BP: Tensor | None, picks: Sequence[Picks], given: Mapping[str, Any]
    ) -> tuple[Tensor, Cut]:
        assert self.prompt is not None
        prefixes = self.selections.prefixes_of(self.pruner, self.prompt.sample_ids)
        if prefixes is None or given.get("past_key_values") is None:
            return super().apply(index, hidden_BPD, real_BP, picks, given)
        blocks, shared = split_shared_prefix(self.kept_rows(hidden_BPD, real_BP, picks), self.prompt.starts, prefixes)
        kept_BK, real_BK = (torch.cat(parts, dim=1) for parts in zip(*map(pad_left, blocks), strict=True))
        cut = Cut.at(index, kept_BK, real_BK, hidden_BPD.device)
        self.shared = SharedPrefixForward(shared, cut.real_BK, self.decoder.config) if shared else None
        return gather(hidden_BPD, cut.kept_BK), cut


@contextmanager
def prune_reusing(selections: SelectionCache, *args: Any, **options: Any) -> Iterator[Trace]:
    """Prunes as `prune` does, with selections from a cache and shared prefixes read once.

    Args:
        selections: orders of prompts that were pruned before, and how prompts begin.
        args: positional arguments of `prune`.
        options: keyword arguments of `prune`.

    Yields:
        The trace of what was kept, rewritten by every prompt.

    Raises:
        InputError: options that cannot be right, here or, as they show, in the model's forward.
    """
    hooks = ReusingHooks.of(*args, **options)
    hooks.selections = selections
    with ExitStack() as undo:
        hooks.install(undo)
        yield hooks.trace
