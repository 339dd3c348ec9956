"""What a pruned prompt leaves in memory: no layer holds keys and values twice, or of tokens that it never saw.

FastV's released code runs the layer before the cut once more for its attention, with the cache live, and so keeps that
layer's keys and values twice (pkunlp-icler/FastV, issue 46).
"""

import gc

import pytest
import torch
from helpers import families
from helpers.families import CAMERAS, TOKENS
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prune2drive.pruning import NoPruner, prune
from prune2drive.pruning.ratios import Uniform
from prune2drive.pruning.surgery.checks import validate

CONFIGS = families.PRUNERS
TEXTS = [[11, 12, 13], [21, 22, 23]]
DEPTH = families.SIZES["num_hidden_layers"]
SEARCHED = ("fastv", "pyramiddrop", "visionzip")  # one cut, several, and merged states: what else may be left in memory


def methods():
    for path in CONFIGS:
        made = instantiate(OmegaConf.create({"seed": 0, "pruner": OmegaConf.load(path)}).pruner)
        made.layer = min(made.layer, DEPTH - 1)
        if not isinstance(made, NoPruner) and not made.traits.resizes_images:
            yield pytest.param(made, path.stem in SEARCHED, id=path.stem)


def tensors() -> list[torch.Tensor]:
    """Returns all tensors with as many axes as keys, which other tests may have left too."""
    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor) and each.ndim == 4]


def storages(like: torch.Tensor, before: list[torch.Tensor]) -> set[int]:
    """Returns where the tensors lie in memory that are shaped as keys of some layer and were not there before."""
    known = {id(each) for each in before}
    new = (each for each in tensors() if id(each) not in known)
    heads = (each for each in new if each.shape[:2] == like.shape[:2] and each.shape[3] == like.shape[3])
    return {each.untyped_storage().data_ptr() for each in heads}


@torch.no_grad()
@pytest.mark.parametrize(("method", "is_memory_searched"), methods())
def test_each_layer_holds_what_entered_it_once(make_family, method, is_memory_searched):
    family = make_family("llava")
    method = validate(method, Uniform(), family.model.config)
    inputs = family.inputs(TEXTS)
    before = tensors() if is_memory_searched else []
    with prune(family.model, method, 0.25, **family.naming(TEXTS)) as trace:
        cache = family.model(**inputs, use_cache=True).past_key_values
        length = inputs["input_ids"].shape[1]
        pools = len(CAMERAS) if method.scope == "per_camera" else 1
        each = method.sizes(len(CAMERAS) // pools * TOKENS // 4, len(CAMERAS) // pools * TOKENS)
        sizes = dict(zip(method.cuts, (pools * size for size in each), strict=True))
        entered = length
        for index, layer in enumerate(cache.layers):
            entered = length - len(CAMERAS) * TOKENS + sizes[index] if index in sizes else entered
            assert layer.keys.shape[2] == layer.values.shape[2] == layer.get_seq_length() == entered, index
        assert entered == trace.positions[0].numel()
        held = {part.untyped_storage().data_ptr() for layer in cache.layers for part in (layer.keys, layer.values)}
        assert len(held) == 2 * DEPTH
        if is_memory_searched:
            assert storages(cache.layers[0].keys, before) == held
