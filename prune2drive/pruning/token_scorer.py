"""A small network that scores visual tokens, and the files that hold its weights.

Shape suffixes: D channels, H hidden units.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from prune2drive.errors import InputError
from prune2drive.files import replace_atomically

NOTES = ("layer", "channels", "depth")


class TokenScorer(nn.Module):
    """Scores tokens by their normalised states: one hidden layer, one number a token.

    Args:
        channels: D, channels of a token.
        hidden: H, hidden units.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(channels, hidden), nn.Linear(hidden, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the scores [...] of tokens [..., D]: the logit of showing an annotated object."""
        normal = F.layer_norm(tokens, tokens.shape[-1:])
        scores: Tensor = self.out(F.gelu(self.hidden(normal))).squeeze(-1)
        return scores

    def write(self, file: Path, about: Mapping[str, Any]) -> None:
        """Writes the weights, with what they were trained on.

        Args:
            file: a safetensors file.
            about: notes for the file's metadata: `layer`, the decoder layer whose input the tokens are, and the model's
                `channels` and `depth`, its number of decoder layers.
        """
        weights = {name: weight.detach().float().cpu().contiguous() for name, weight in self.state_dict().items()}
        notes = {name: str(value) for name, value in about.items()}
        replace_atomically(file, lambda draft: save_file(weights, draft, notes))

    @classmethod
    def read(cls, file: Path) -> tuple[TokenScorer, dict[str, str]]:
        """Returns the network and the notes in a file.

        Raises:
            InputError: the file is missing or holds something else.
        """
        try:
            with safe_open(file, "pt") as content:
                weights = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  # no dictionary
                about = {name: content.metadata()[name] for name in NOTES}
            hidden, channels = weights["hidden.weight"].shape
            scorer = cls(channels, hidden)
            scorer.load_state_dict(weights)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            raise InputError(
                f"{file}: holds no token scorer; train one with `python run.py task=train_scorer`"
            ) from None
        return scorer.eval().requires_grad_(False), about


@torch.no_grad()
def shows_object(token_boxes_N4: Tensor, boxes_O4: Tensor) -> Tensor:
    """Returns which tokens show an object: half of the token, or half of the object, lies in the other; bool [N].

    Args:
        token_boxes_N4: rectangles (x0, y0, x1, y1) of tokens.
        boxes_O4: those of objects, in the same units.
    """
    corner = torch.maximum(token_boxes_N4[:, None, :2], boxes_O4[:, :2])
    shared_NO = (torch.minimum(token_boxes_N4[:, None, 2:], boxes_O4[:, 2:]) - corner).clamp(min=0).prod(dim=2)
    smaller_NO = torch.minimum(_area(token_boxes_N4)[:, None], _area(boxes_O4))
    return (2 * shared_NO >= smaller_NO).logical_and(shared_NO > 0).any(dim=1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
