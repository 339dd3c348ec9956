"""A KV cache that grows in place holds what stock ones hold."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from prune2drive.pruning.reuse.frame_cache import ROOM, FrameCache, GrowingLayer

STEPS = st.one_of(
    st.tuples(st.just("update"), st.integers(1, ROOM + 5)),
    st.tuples(st.just("rows"), st.lists(st.integers(0, 5), min_size=1, max_size=5)),
    st.tuples(st.just("crop"), st.integers(1, 3)),
)


@given(st.lists(STEPS, max_size=12), st.integers(0, 3))
def test_a_growing_layer_holds_what_a_stock_one_does(steps, seed):
    generator = torch.Generator().manual_seed(seed)
    layers, rows = (GrowingLayer(), DynamicLayer()), 3
    for step, value in [("update", 7), *steps]:
        if step == "update":
            new = [torch.randn(rows, 2, value, 4, generator=generator) for _ in range(2)]
            found, expected = (layer.update(*new) for layer in layers)
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
        elif step == "rows":
            chosen = torch.tensor([row % rows for row in value])
            rows = len(chosen)
            for layer in layers:
                layer.reorder_cache(chosen)
        elif layers[1].get_seq_length() > value:
            for layer in layers:
                layer.crop(-value)
        assert torch.equal(layers[0].keys, layers[1].keys) and torch.equal(layers[0].values, layers[1].values)
        assert layers[0].get_seq_length() == layers[1].get_seq_length()


def test_new_positions_are_not_copied_with_the_rest():
    layer = GrowingLayer()
    layer.update(torch.zeros(1, 1, 9, 2), torch.zeros(1, 1, 9, 2))
    layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    before = layer.keys.data_ptr()
    for _ in range(ROOM):
        layer.update(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    assert layer.keys.data_ptr() == before and layer.keys.sum() == 2 * (ROOM + 1)


def test_a_prompt_cut_before_the_first_layer_counts_whole():
    cache = FrameCache(2)
    for layer, kept in enumerate((5, 5)):
        cache.update(torch.zeros(1, 1, kept, 2), torch.zeros(1, 1, kept, 2), layer)
    cache.dropped = 20
    assert cache.get_seq_length() == 25 and cache.get_seq_length(0) == cache.get_seq_length(1) == 5
