"""Every method of configs/pruner, per camera and in one pool, on families of every kind: what all of them promise."""

import functools

import pytest
import torch
from helpers import families
from helpers.families import CAMERAS, TOKENS
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prune2drive.errors import InputError
from prune2drive.pruning import NoPruner, prune
from prune2drive.pruning.ratios import Uniform
from prune2drive.pruning.selection import budget
from prune2drive.pruning.surgery.checks import validate

pytestmark = pytest.mark.slow  # a few hundred cases


CONFIGS = families.PRUNERS
TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]
DEPTH = families.SIZES["num_hidden_layers"]


@functools.cache
def family_of(name):
    return families.make(name)


def build(path, scope):
    node = OmegaConf.create({"seed": 0, "pruner": OmegaConf.load(path)}).pruner
    made = instantiate(node)
    made.scope = scope
    return made


def methods():
    for path in CONFIGS:
        made = instantiate(OmegaConf.create({"seed": 0, "pruner": OmegaConf.load(path)}).pruner)
        if not isinstance(made, NoPruner):
            for name in families.tried_with(path.stem):
                for scope in made.traits.scopes:
                    yield pytest.param(name, path, scope, id=f"{name}-{path.stem}-{scope}")


@torch.no_grad()
def prefill(family, method, keep):
    inputs = family.inputs(TEXTS)
    with prune(family.model, method, keep, **family.naming(TEXTS)) as trace:
        return trace, family.model(**inputs).logits[:, -1]


@pytest.mark.parametrize(("name", "path", "scope"), methods())
def test_a_method_on_a_family(name, path, scope):
    family, method = family_of(name), build(path, scope)
    method.layer = min(method.layer, DEPTH - 1)  # some cut later than these small decoders are deep
    if families.is_refused(method, name):
        with pytest.raises(InputError, match=f"^[^\n]*{name}[^\n]*$"):
            validate(method, Uniform(), family.model.config)
        return
    method = validate(method, Uniform(), family.model.config)
    for keep in (0.1, 0.25):
        trace, logits = prefill(family, method, keep)
        size = budget(keep, TOKENS)
        assert trace.kept_tokens == [len(CAMERAS) * size] * len(TEXTS)
        for row in trace.kept:
            for kept in row.values():
                assert (kept.diff() > 0).all() and (len(kept) == 0 or 0 <= kept[0] <= kept[-1] < TOKENS)
                assert len(kept) == size or scope == "global"
    again, same = prefill(family, method, keep)
    assert torch.equal(logits, same)
    assert [[k.tolist() for k in row.values()] for row in again.kept] == [
        [k.tolist() for k in row.values()] for row in trace.kept
    ]
    _, everything = prefill(family, method, 1.0)
    with torch.no_grad():
        assert torch.equal(everything, family.model(**family.inputs(TEXTS)).logits[:, -1])
