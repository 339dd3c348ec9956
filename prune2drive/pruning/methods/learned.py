"""A trained scorer: how much training buys over methods that need none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.files import first_file
from prune2drive.pruning.base import Pruner, Traits
from prune2drive.pruning.context import Context
from prune2drive.pruning.selection import farthest_points, highest
from prune2drive.pruning.token_scorer import TokenScorer

SCORERS = (Path("outputs/scorers"), Path(__file__).resolve().parents[2] / "scorers")
"""Folders of trained scorers, in the order in which they are looked at: the user's, then the package's."""


@dataclass
class LearnedScorer(Pruner):
    """Keeps the tokens that a small trained network takes for parts of annotated objects.

    The network sees each token by itself, and was trained on the states of one model at one layer
    (`task=train_scorer`). After FastDriveVLA (arXiv 2507.23318), whose scorer learns to tell foreground by
    reconstructing it; here it learns from the objects' boxes. The question is not read.

    Args:
        spread: multiply distances of farthest point sampling by the probability, rather than keep the highest scores,
            so that not all tokens are spent on one object.
        file: the network's weights.
        name: name of the model; without a file, `<name>.safetensors` is looked for in `SCORERS`.
    """

    spread: bool = True
    file: str | None = None
    name: str = ""

    traits = Traits(shares_picks_per_frame=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        path = first_file(self.file, SCORERS, f"{self.name}.safetensors")
        if not path.is_file():
            raise InputError(
                f"pruner=learned: no trained scorer for this model ({path} is missing); train one with "
                f"`python run.py task=train_scorer model={self.name or '<model>'}`, or name its file as pruner.file="
            )
        self.scorer, self.about = TokenScorer.read(path)
        if str(self.layer) != self.about["layer"]:
            raise InputError(f"pruner.layer={self.layer}: {path} was trained at layer {self.about['layer']}; use that")

    def unsupported_reason(self, config: Any) -> str:
        text = config.get_text_config()
        mine, its = (self.about["channels"], self.about["depth"]), (str(text.hidden_size), str(text.num_hidden_layers))
        if mine == its:
            return ""
        return (
            f"the scorer was trained on a model with {mine[0]} channels and {mine[1]} layers, and this model has "
            f"{its[0]} and {its[1]}: train one for it with `python run.py task=train_scorer`"
        )

    def select(self, tokens_CND: Tensor, k: int, ctx: Context) -> Tensor:
        logit_CN = self.scorer.to(tokens_CND.device)(tokens_CND.float())
        if self.spread:
            return farthest_points(tokens_CND, k, weight=logit_CN.sigmoid().clamp(min=1e-6))
        return highest(logit_CN, k)

    def flops(self, count: int, k: int, channels: int) -> int:
        """Counts the network (2 D H and 2 H a token), and the distances (2 D a pair) if picks are spread."""
        hidden = self.scorer.hidden.out_features
        distances = (2 * count * channels + k) * count if self.spread else 0
        return 2 * count * hidden * (channels + 1) + distances
