import functools

import pytest
import torch
from helpers import families
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("pruning", max_examples=25, derandomize=True)
settings.load_profile("pruning")


@functools.cache
def _family(name: str, attention: str) -> families.Family:
    return families.make(name, attention)


@pytest.fixture(params=["sdpa", "eager"])
def attention(request) -> str:
    return request.param


@pytest.fixture(params=families.FAMILIES)
def family(request, attention: str) -> families.Family:
    """Every family in both attentions; shared between tests, so not to be changed."""
    return _family(request.param, attention)


@pytest.fixture(params=families.FAMILIES)
def sdpa_family(request) -> families.Family:
    """Every family in one attention, for what no attention mask decides; shared between tests, so not to be changed."""
    return _family(request.param, "sdpa")


@pytest.fixture
def make_family():
    """One family by name; shared between tests, so not to be changed."""
    return lambda name, attention="sdpa": _family(name, attention)
