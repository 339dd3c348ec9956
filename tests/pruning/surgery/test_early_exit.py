import pytest
import torch
from helpers import families

from prune2drive.pruning import FastV, NoPruner, RandomPruner, prune
from prune2drive.pruning.surgery.early_exit import stop_at


def calls_of(decoder, undo):
    """Indices of the layers that ran."""
    ran = []
    for index, layer in enumerate(decoder.layers):
        undo.append(layer.register_forward_hook(lambda *_, index=index: ran.append(index)))
    return ran


@pytest.mark.parametrize("pruner", [RandomPruner(layer=0), RandomPruner(layer=1), FastV(layer=2), NoPruner()])
def test_what_is_kept_is_known_without_the_layers_behind(pruner):
    family = families.make("llava_onevision")
    texts = [[11, 12, 13], [21, 22, 23, 24]]
    inputs, undo = family.inputs(texts), []
    with prune(family.model, pruner, 0.3, **family.naming(texts)) as whole:
        family.model.generate(**inputs, max_new_tokens=2, do_sample=False)
    ran = calls_of(family.model.get_decoder(), undo)
    with prune(family.model, pruner, 0.3, **family.naming(texts)) as trace, stop_at(family.model, pruner.layer):
        family.model.generate(**inputs, max_new_tokens=2, do_sample=False)
        pytest.fail("the forward pass went on")
    for handle in undo:
        handle.remove()
    assert ran == list(range(pruner.layer))
    for alone, all_the_way in zip(trace.kept, whole.kept, strict=True):
        assert alone.keys() == all_the_way.keys()
        assert all(torch.equal(alone[camera], all_the_way[camera]) for camera in alone)


def test_nothing_is_left_behind():
    family = families.make("llava_onevision")
    inputs = family.inputs([[11, 12, 13]])
    before = family.model(**inputs).logits
    with stop_at(family.model, 1):
        family.model(**inputs)
    assert torch.equal(family.model(**inputs).logits, before)
    with pytest.raises(KeyError), stop_at(family.model, 1):
        raise KeyError
    assert torch.equal(family.model(**inputs).logits, before)
