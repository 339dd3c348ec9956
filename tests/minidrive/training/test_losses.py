import math

import pytest
import torch
from torch import nn

from prune2drive.minidrive.training.batches import IGNORED
from prune2drive.minidrive.training.losses import gaze_loss, naming_losses
from prune2drive.minidrive.training.packed_attention import Watch, packed_attention


class Layer(nn.Module):
    layer_idx = 2


def watched(total=10, questions=4, layer=2):
    """A watch of two scenes, four heads; and the attention of the whole sequence, [S, H, T, T]."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, total, 8)
    mask = torch.full((2, 1, questions, total), -torch.inf)
    mask[..., : total - questions] = 0
    mask[:, :, range(questions), range(total - questions, total)] = 0
    watch = Watch(layer)
    packed_attention(Layer(), query, key, value, mask, scaling=0.3, watch=watch)
    scores = query @ key.transpose(-1, -2) * 0.3
    scores[:, :, total - questions :] += mask
    return watch, scores.softmax(-1)


def test_gaze_is_the_mass_that_the_second_half_of_the_heads_puts_there():
    watch, attention = watched()
    at, visual = torch.tensor([[0, 1, 1, 0], [6, 9, 7, 8]]), torch.tensor([1, 2, 4, 5])
    on = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()
    masses = [
        -math.log(attention[scene, head, place, visual[mine]].sum())
        for (scene, place), mine in zip(at.T.tolist(), on, strict=True)
        if mine.any()
        for head in (2, 3)
    ]
    assert float(gaze_loss(watch, at, on, visual)) == pytest.approx(sum(masses) / len(masses), rel=1e-5)


def test_nothing_to_look_at_costs_nothing():
    watch, _ = watched()
    at, on = torch.tensor([[0], [6]]), torch.zeros(1, 2, dtype=torch.bool)
    assert gaze_loss(watch, at, on, torch.tensor([1, 2])) == 0


def test_only_the_layer_that_is_watched_is_remembered():
    watch, _ = watched(layer=1)
    assert watch.query_SHTD is None


def test_naming_is_the_cross_entropy_of_the_names_there_are():
    torch.manual_seed(0)
    vectors, words = torch.randn(5, 8), {"kind": torch.randn(3, 8), "colour": torch.randn(2, 8)}
    names = {"kind": torch.tensor([0, 2, IGNORED, 1, IGNORED]), "colour": torch.full((5,), IGNORED)}
    unit = vectors / vectors.pow(2).mean(-1, keepdim=True).sqrt()
    expected = -sum((unit[v] @ words["kind"].T).log_softmax(-1)[name] for v, name in ((0, 0), (1, 2), (3, 1))) / 3
    found = naming_losses(vectors, names, words)
    assert float(found["kind"]) == pytest.approx(float(expected), rel=1e-4)
    assert found["colour"] == 0
