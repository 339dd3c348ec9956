"""Skips the padding between frames and their questions: linear layers run on the real positions alone.

Questions are of unequal lengths, and those of a batch are padded to the longest.

Shape suffixes: B batch rows, T positions of a forward pass, D channels, R real positions of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from prune2drive.pruning.surgery.patch import override_method

WORTHWHILE = 0.9  # share of real positions from which on nothing is gained


class PaddingSkip:
    """Lets a decoder's linear layers leave out padding, where told of it; their output there is 0."""

    real_R: Tensor | None = None
    positions = 0

    def install(self, decoder: Any, undo: ExitStack) -> None:
        """Overrides the linear layers until `undo` closes."""
        for module in decoder.layers.modules():
            if isinstance(module, nn.Linear):
                override_method(undo, module, "forward", self._on_linear)

    def expect(self, mask_BT: Tensor | None) -> None:
        """Says which positions of the next forward pass are real; None where all of them are."""
        self.real_R = None
        if mask_BT is not None and mask_BT.float().mean() < WORTHWHILE:
            self.real_R, self.positions = mask_BT.flatten().nonzero().flatten(), mask_BT.numel()

    def _on_linear(self, original: Callable[[Tensor], Tensor], states_BTD: Tensor) -> Tensor:
        if self.real_R is None or states_BTD.ndim != 3 or states_BTD[..., 0].numel() != self.positions:
            return original(states_BTD)
        real_R = self.real_R.to(states_BTD.device)
        found_RD = original(states_BTD.flatten(0, 1).index_select(0, real_R))
        output = found_RD.new_zeros(self.positions, found_RD.shape[-1]).index_copy_(0, real_R, found_RD)
        return output.view(*states_BTD.shape[:2], -1)
