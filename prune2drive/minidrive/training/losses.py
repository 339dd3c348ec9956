"""The losses beside the answers, which help the model begin; the last stretch of training has none of them.

From answers alone a question's few words learn next to nothing from hundreds of visual tokens for a long time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from prune2drive.minidrive.training.batches import IGNORED
from prune2drive.minidrive.training.packed_attention import Watch


def naming_losses(vectors: Tensor, names: Mapping[str, Tensor], words: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cross entropy of naming each vector, group by group.

    Args:
        vectors: [..., D], normalised here.
        names: group -> index into the group's words for each vector, IGNORED where it has no such name.
        words: group -> output embeddings of its words, [words, D].

    Returns:
        group -> mean over the vectors that have a name in it, 0 if none has.
    """
    vectors = F.rms_norm(vectors, vectors.shape[-1:])
    losses = {}
    for group, embeddings in words.items():
        named = names[group] != IGNORED
        logits = (vectors[named] @ embeddings.to(vectors.dtype).T).float()
        losses[group] = F.cross_entropy(logits, names[group][named], reduction="sum") / max(1, int(named.sum()))
    return losses


def gaze_loss(watch: Watch, at: Tensor, on: Tensor, visual: Tensor) -> Tensor:
    """Minus the logarithm of the attention that falls on what decides the answer.

    The second half of the watched layer's heads look there; the others are left alone.

    Args:
        watch: of the model's pass.
        at: [2, Q], scene and position from which each question looks.
        on: bool [Q, V], visual tokens it should look at; questions without any are left out.
        visual: [V], positions of the visual tokens.

    Returns:
        The mean over questions and heads, 0 if no question has anything to look at.
    """
    some = on.any(1)
    (scenes, places), on = at[:, some], on[some]
    losses = [torch.zeros(())]
    for scene in scenes.unique().tolist():
        mine = scenes == scene
        logits = watch.scores(scene, places[mine])
        there = logits[:, :, visual].masked_fill(~on[mine], -torch.inf)
        losses.append((logits.logsumexp(-1) - there.logsumexp(-1)).flatten())
    return torch.cat(losses[1:]).mean() if len(losses) > 1 else losses[0]
