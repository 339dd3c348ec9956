import math

import pytest
import torch
from torch import nn

from prune2drive.minidrive.training.losses import attention_supervision_loss, attribute_losses
from prune2drive.minidrive.training.packed_attention import AttentionProbe, packed_attention
from prune2drive.minidrive.training.targets import IGNORED


class Layer(nn.Module):
    layer_idx = 2


def probed(total=10, questions=4, layer=2):
    """Returns a probe of two scenes and four heads, and the attention of the whole sequence, [S, H, T, T]."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, total, 8)
    mask = torch.full((2, 1, questions, total), -torch.inf)
    mask[..., : total - questions] = 0
    mask[:, :, range(questions), range(total - questions, total)] = 0
    probe = AttentionProbe(layer)
    packed_attention(Layer(), query, key, value, mask, scaling=0.3, probes=[probe])
    scores = query @ key.transpose(-1, -2) * 0.3
    scores[:, :, total - questions :] += mask
    return probe, scores.softmax(-1)


def test_attention_supervision_is_the_mass_of_the_second_half_of_the_heads():
    probe, attention = probed()
    start, visual = torch.tensor([[0, 1, 1, 0], [6, 9, 7, 8]]), torch.tensor([1, 2, 4, 5])
    evidence = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    masses = [
        -math.log(attention[scene, head, place, visual[own]].sum())
        for (scene, place), own in zip(start.T.tolist(), evidence, strict=True)
        if own.any()
        for head in (2, 3)
    ]
    assert float(attention_supervision_loss(probe, start, evidence, visual)) == pytest.approx(
        sum(masses) / len(masses), rel=1e-5
    )


def test_attention_supervision_without_evidence_is_zero():
    probe, _ = probed()
    start, evidence = torch.tensor([[0], [6]]), torch.zeros(1, 2, dtype=torch.bool)
    assert attention_supervision_loss(probe, start, evidence, torch.tensor([1, 2])) == 0


def test_probe_captures_its_layer_alone():
    probe, _ = probed(layer=1)
    assert probe.query_SHTD is None


def test_attribute_losses_are_the_cross_entropy_of_the_attributes_there_are():
    torch.manual_seed(0)
    vectors, words = torch.randn(5, 8), {"kind": torch.randn(3, 8), "colour": torch.randn(2, 8)}
    targets = {"kind": torch.tensor([0, 2, IGNORED, 1, IGNORED]), "colour": torch.full((5,), IGNORED)}
    unit = vectors / vectors.pow(2).mean(-1, keepdim=True).sqrt()
    expected = -sum((unit[v] @ words["kind"].T).log_softmax(-1)[word] for v, word in ((0, 0), (1, 2), (3, 1))) / 3
    found = attribute_losses(vectors, targets, words)
    assert float(found["kind"]) == pytest.approx(float(expected), rel=1e-4)
    assert found["colour"] == 0
