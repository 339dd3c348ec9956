"""The auxiliary losses of MiniDrive's training; its last phase has none of them.

From answers alone a question's few words learn next to nothing from hundreds of visual tokens for a long time.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from prune2drive.minidrive.training.packed_attention import AttentionProbe
from prune2drive.minidrive.training.targets import IGNORED


def attribute_losses(vectors: Tensor, targets: Mapping[str, Tensor], words: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Computes the cross entropy of classifying vectors into the words of every attribute.

    Args:
        vectors: hidden states [..., D]; they are normalised to unit root mean square.
        targets: attribute -> index of the right word for each vector, IGNORED where a vector has no such attribute.
        words: attribute -> output embeddings of its words, [words, D].

    Returns:
        Attribute -> mean over the vectors that have the attribute, 0 if none has it.
    """
    vectors = F.rms_norm(vectors, vectors.shape[-1:])
    losses = {}
    for name, embeddings in words.items():
        has = targets[name] != IGNORED
        logits = (vectors[has] @ embeddings.to(vectors.dtype).T).float()
        losses[name] = F.cross_entropy(logits, targets[name][has], reduction="sum") / max(1, int(has.sum()))
    return losses


def attention_supervision_loss(probe: AttentionProbe, query: Tensor, evidence: Tensor, visual: Tensor) -> Tensor:
    """Computes minus the logarithm of the attention mass on the visual tokens that decide an answer.

    Only the second half of the probed layer's heads is supervised.

    Args:
        probe: the probe that was passed to the model's forward pass.
        query: [2, Q], scene and position of each query: where an answer begins, or a visual token.
        evidence: bool [Q, V], visual tokens that decide the answer; questions without any do not count.
        visual: [V], positions of the visual tokens.

    Returns:
        The mean over questions and heads, 0 if no question counts.
    """
    some = evidence.any(1)
    (scenes, starts), evidence = query[:, some], evidence[some]
    losses = [torch.zeros(())]
    for scene in scenes.unique().tolist():
        here = scenes == scene
        logits = probe.logits(scene, starts[here])
        wanted = logits[:, :, visual].masked_fill(~evidence[here], -torch.inf)
        losses.append((logits.logsumexp(-1) - wanted.logsumexp(-1)).flatten())
    return torch.cat(losses[1:]).mean() if len(losses) > 1 else losses[0]
