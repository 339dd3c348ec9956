from types import SimpleNamespace

import pytest
import torch
from torch import nn

from prune2drive.minidrive.training.packed_attention import AttentionProbe, packed_attention


def parts(prefix, questions):
    torch.manual_seed(0)
    total = prefix + questions
    query, key, value = torch.randn(3, 2, 4, total, 8)
    mask = torch.zeros(2, 1, questions, total).masked_fill(torch.rand(2, 1, questions, total) < 0.3, -torch.inf)
    mask[..., 0] = 0
    whole = torch.full((2, 1, total, total), -torch.inf)
    whole[:, :, :prefix, :prefix] = torch.full((prefix, prefix), -torch.inf).triu(1)
    whole[:, :, prefix:] = mask
    return query, key, value, mask, whole


@pytest.mark.parametrize("prefix, questions", [(5, 7), (5, 0)])
def test_packed_attention_is_attention_under_the_whole_mask(prefix, questions):
    query, key, value, mask, whole = parts(prefix, questions)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=whole, scale=0.3)
    found, weights = packed_attention(nn.Identity(), query, key, value, mask, scaling=0.3)
    assert weights is None
    torch.testing.assert_close(found, expected.transpose(1, 2))


def test_a_probe_has_the_logits_of_its_layer_before_and_after_the_prefix():
    query, key, value, mask, whole = parts(5, 7)
    probes = AttentionProbe(1), AttentionProbe(3)
    packed_attention(SimpleNamespace(layer_idx=3), query, key, value, mask, scaling=0.3, probes=probes)
    assert probes[0].query_SHTD is None
    places = torch.tensor([2, 9, 4, 11])
    found = probes[1].logits(1, places).softmax(-1)
    full = (query @ key.transpose(-1, -2) * 0.3 + whole).softmax(-1)
    torch.testing.assert_close(found, full[1, 2:, places])
