"""Which part of MiniDrive's model is trained on what, for how long, and at which learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prune2drive.errors import InputError

PHASES = ("token_supervision", "answer_training", "fine_tuning")
AUXILIARY_LOSSES = ("asked", "subject", "attention_supervision", "change", "track")


@dataclass(frozen=True)
class Schedule:
    """Sets the lengths and learning rates of the three phases of a training.

    The learning rate of a phase is constant in the first half of its steps and falls in the second: to almost zero in
    token supervision and in fine-tuning, to `fine_tuning_rate` in answer training.

    Args:
        token_supervision: steps in which visual tokens learn the attributes of what they show, without questions; those
            of clips learn in the decoder what has changed.
        answer_training: steps in which the decoder learns answers and auxiliary targets from frozen visual tokens.
        fine_tuning: steps in which all weights learn from answers alone.
        scenes: phase -> scenes of a step.
        auxiliary_losses: weights of the losses in answer training beside the answers': `asked` classifies the
            attributes that the question names, `subject` those of the object that decides the answer, and
            `attention_supervision` draws attention to the objects that decide it; of clips alone, in
            token supervision too, `change` classifies what became of visual tokens, and `track` draws their attention
            to where their object was at first.
        rate: learning rate of the language model.
        fine_tuning_rate: learning rate at the start of fine-tuning, as a share of `rate`.
        vision_share: learning rate of the vision tower after token supervision, as a share of the language model's.
        weight_decay: weight decay of matrices.
        warmup: steps in which the learning rate rises, at the start of token supervision and of answer training.

    Raises:
        InputError: a phase has no number of scenes, or an auxiliary loss has no weight.
    """

    token_supervision: int
    answer_training: int
    fine_tuning: int
    scenes: Mapping[str, int]
    auxiliary_losses: Mapping[str, float]
    rate: float = 1e-3
    fine_tuning_rate: float = 0.3
    vision_share: float = 0.3
    weight_decay: float = 0.05
    warmup: int = 100

    def __post_init__(self) -> None:
        for name, needed in (("scenes", PHASES), ("auxiliary_losses", AUXILIARY_LOSSES)):
            if set(given := getattr(self, name)) != set(needed):
                raise InputError(f"schedule.{name}: set {', '.join(needed)}, not {', '.join(given) or 'nothing'}")

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return self.token_supervision + self.answer_training + self.fine_tuning

    def phase(self, step: int) -> str:
        """Returns the phase that a step belongs to."""
        if step < self.token_supervision:
            return PHASES[0]
        return PHASES[1] if step < self.token_supervision + self.answer_training else PHASES[2]

    def factor(self, step: int) -> float:
        """Returns the language model's learning rate at a step in units of `rate`, above 0 and at most 1."""
        phase = self.phase(step)
        begin, rate, end = {
            "token_supervision": (0, 1.0, 0.02),
            "answer_training": (self.token_supervision, 1.0, self.fine_tuning_rate),
            "fine_tuning": (self.token_supervision + self.answer_training, self.fine_tuning_rate, 0.01),
        }[phase]
        since = step - begin
        warm = 1.0 if phase == "fine_tuning" else (since + 1) / max(1, self.warmup)
        fallen = max(0.0, 2 * since / max(1, getattr(self, phase)) - 1)
        return min(warm, rate + (end - rate) * fallen)

    def vision_factor(self, step: int) -> float:
        """Returns the vision tower's learning rate at a step in units of `rate`."""
        return self.factor(step) * (self.vision_share if step >= self.token_supervision else 1.0)
