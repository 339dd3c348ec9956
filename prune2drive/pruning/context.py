"""What a pruning method is given besides the tokens, and what it may return besides indices.

Shape suffixes: B batch rows, P prompt positions, C pools, N tokens of a pool, D channels, K kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.pool import Pool
from prune2drive.pruning.vision import VisionTokens


@dataclass(frozen=True)
class Context:
    """What a method may look at besides the tokens; positions are those of the batch as it is after earlier cuts.

    Args:
        pools: the pool of each row of `tokens_CND`.
        before: the decoder layer before the cut; None for a cut before the LLM.
        at: the decoder layer whose input is cut.
        embeddings_BPD: embeddings that entered the LLM, at the positions that earlier cuts kept.
        prompt_BPD: embeddings that entered the LLM, at all positions of the prompt.
        norm: the decoder's last norm.
        question_BP: True at the text after the last image: the question and the end of the chat template.
        vision: gives the vision tower's attention and features of the tokens, for methods whose traits need them.
        questions: each batch row's question in words, where the caller of `prune` gave it.
        notes: kept for the method from one cut of a prompt to the next.
    """

    pools: tuple[Pool, ...]
    before: LayerView | None
    at: LayerView
    embeddings_BPD: Tensor
    prompt_BPD: Tensor
    norm: Callable[[Tensor], Tensor]
    question_BP: Tensor
    vision: Callable[[], VisionTokens]
    questions: Sequence[str] | None = None
    notes: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def rows_C(self) -> Tensor:
        """Batch row of each pool."""
        return torch.tensor([pool.row for pool in self.pools])

    @cached_property
    def text_lengths(self) -> list[int]:
        """How many positions at the end of each batch row are the text after the last image."""
        lengths: list[int] = self.question_BP.sum(dim=1).cpu().tolist()
        return lengths

    def of_pools(self, states: Tensor) -> Tensor:
        """Returns what states of all positions, [B, P, ...], are at each pool's tokens; [C, N, ...]."""
        at_CN = torch.stack([pool.at_N for pool in self.pools]) + self.rows_C[:, None] * states.shape[1]
        return states.flatten(0, 1)[at_CN.to(states.device)]


def moved(parts: Sequence[Tensor], device: torch.device) -> Sequence[Tensor]:
    """Returns vectors on a device, to which they go in one copy: each copy keeps the host waiting."""
    together: Tensor = torch.cat(list(parts)).to(device)
    return torch.split(together, [len(part) for part in parts])


@dataclass(frozen=True)
class Selection:
    """What a method keeps of each pool, where that is more than indices.

    Args:
        picks_CK: kept indices into each pool, in selection order.
        rows_CKD: states of the kept slots from now on, where tokens were merged; their own states by default.
        sizes_CK: number of tokens that each slot stands for, by which attention to it is weighted.
        raw_C: number of tokens that the method's own rule would have kept, for methods without a budget.
    """

    picks_CK: Tensor
    rows_CKD: Tensor | None = None
    sizes_CK: Tensor | None = None
    raw_C: Sequence[int] | None = None
