"""When MiniDrive's model learns what, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prune2drive.errors import InputError

STRETCHES = ("naming", "learning", "settling")
GUIDES = ("asked", "subject", "gaze")


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn.

    In every stretch the learning rate is constant for the first half and falls in the second: while naming to almost
    nothing, while learning to `settling_rate`, from which settling goes on to almost nothing.

    Args:
        naming: steps in which visual tokens learn to name what they show; no question is asked.
        learning: steps in which answers are learned from frozen visual tokens, with guidance.
        settling: steps in which answers alone are learned from, all weights free.
        scenes: scenes a step, for each stretch.
        guidance: in learning, weights of the losses beside the answers: naming what is `asked`, naming the `subject`
            that decides the answer, and the `gaze` on it.
        rate: the learning rate.
        settling_rate: as a share of `rate`.
        vision_share: the vision tower's learning rate while settling, as a share of the language model's.
        warmup: steps until the full learning rate, when naming and when learning begins.
    """

    naming: int
    learning: int
    settling: int
    scenes: Mapping[str, int]
    guidance: Mapping[str, float]
    rate: float = 1e-3
    settling_rate: float = 0.3
    vision_share: float = 0.3
    weight_decay: float = 0.05
    warmup: int = 100

    def __post_init__(self) -> None:
        """Refuses a schedule that leaves something open.

        Raises:
            InputError: a stretch without its number of scenes, or a guide without its weight.
        """
        for name, needed in (("scenes", STRETCHES), ("guidance", GUIDES)):
            if set(found := getattr(self, name)) != set(needed):
                raise InputError(f"schedule.{name}: name each of {', '.join(needed)}, found {', '.join(found)}")

    @property
    def steps(self) -> int:
        return self.naming + self.learning + self.settling

    def stretch(self, step: int) -> str:
        return "naming" if step < self.naming else "learning" if step < self.naming + self.learning else "settling"

    def factor(self, step: int) -> float:
        """The language model's learning rate at a step, in units of `rate`; never quite zero."""
        begin, rate, end = 0, 1.0, 0.02
        if step >= self.naming:
            begin, end = self.naming, self.settling_rate
        if step >= self.naming + self.learning:
            begin, rate, end = self.naming + self.learning, self.settling_rate, 0.01
        stretch = self.stretch(step)
        since = step - begin
        warm = 1.0 if stretch == "settling" else (since + 1) / self.warmup
        fallen = max(0.0, 2 * since / getattr(self, stretch) - 1)
        return min(warm, rate + (end - rate) * fallen)

    def vision_factor(self, step: int) -> float:
        return self.factor(step) * (self.vision_share if step >= self.naming else 1.0)
