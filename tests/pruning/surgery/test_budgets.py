"""What a budget says: tokens after the last cut, or their mean over all layers."""

from dataclasses import dataclass

import pytest
import torch
from helpers.contexts import pools_of
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, Traits, prune
from prune2drive.pruning.ratios import as_policy
from prune2drive.pruning.surgery.budgets import BudgetRule, layer_average


@dataclass
class Twice(TFPS):
    """Halves at its first cut, and cuts to k at its second."""

    later: int = 3

    @property
    def cuts(self):
        return (self.layer, self.later)

    def sizes(self, k, count):
        return [max(k, count // 2), k]


def lengths(pruner, k, count, depth):
    """Tokens in each layer, one layer after the other."""
    left, found = count, []
    for layer in range(depth):
        if layer in pruner.cuts:
            left = min(left, pruner.sizes(k, count)[pruner.cuts.index(layer)])
        found.append(left)
    return found


PRUNERS = [TFPS(layer=0), TFPS(layer=1), TFPS(layer=3), Twice(layer=1)]


@given(st.sampled_from(PRUNERS), st.integers(1, 60), st.integers(1, 60), st.integers(4, 40))
def test_the_average_over_layers(pruner, k, count, depth):
    if k <= count:
        expected = lengths(pruner, k, count, depth)
        assert layer_average(pruner, k, count, depth) == pytest.approx(sum(expected) / depth)


@given(st.sampled_from(PRUNERS), st.integers(1, 60), st.floats(0.05, 1), st.integers(4, 40))
def test_the_most_tokens_within_an_average(pruner, count, ratio, depth):
    rule = BudgetRule(as_policy(ratio), "nearest", "layer_average", depth)
    (nominal,) = rule.nominal(pools_of(count), pruner)
    try:
        (final,) = rule.per_cut(pools_of(count), pruner, [nominal])[-1]
    except InputError:
        assert sum(lengths(pruner, 1, count, depth)) / depth > nominal
        return
    assert sum(lengths(pruner, final, count, depth)) / depth <= nominal
    if final < count:
        assert sum(lengths(pruner, final + 1, count, depth)) / depth > nominal


def test_before_the_llm_both_axes_are_one():
    for axis in ("final", "layer_average"):
        rule = BudgetRule(as_policy(0.3), "nearest", axis, 8)
        assert rule.per_cut(pools_of(50), TFPS(layer=0), rule.nominal(pools_of(50), TFPS(layer=0))) == [[15]]


def test_an_average_that_cannot_be_had(make_family):
    family = make_family("llama")
    inputs, naming = family.inputs([[11, 12]]), family.naming([[11, 12]])
    with pytest.raises(
        InputError, match=r"2 of 16 tokens cannot be had with cuts at layers \[3\] of 4, 12 is the least"
    ):
        with prune(family.model, TFPS(layer=3), 0.1, budget_axis="layer_average", **naming):
            family.model(**inputs)
    with pytest.raises(InputError, match="budget_axis=middle: choose"):
        with prune(family.model, TFPS(), 0.1, budget_axis="middle"):
            pass


def test_an_average_inside_a_model(make_family):
    family = make_family("llama")
    inputs, naming = family.inputs([[11, 12]]), family.naming([[11, 12]])
    with prune(family.model, TFPS(layer=1), 0.5, budget_axis="layer_average", **naming) as trace:
        family.model(**inputs)
    assert trace.nominal_tokens == [24] and trace.kept_tokens == [3 * 5]  # (16 + 3 * 5) / 4 is the most below 8
    assert trace.stages == [[(1, 15)]]


def test_positions_are_the_authors_unless_told(make_family):
    @dataclass
    class Renumbering(TFPS):
        traits = Traits(positions="renumber")

    family = make_family("llama")
    inputs, naming = family.inputs([[11, 12]]), family.naming([[11, 12]])
    found = {}
    for name, pruner, positions in (
        ("authors", Renumbering(), None),
        ("told", TFPS(), "renumber"),
        ("kept", Renumbering(), "keep"),
        ("plain", TFPS(), None),
    ):
        with prune(family.model, pruner, 0.3, positions=positions, **naming):
            found[name] = family.model(**inputs).logits
    assert torch.equal(found["authors"], found["told"]) and torch.equal(found["kept"], found["plain"])
    assert not torch.allclose(found["authors"], found["plain"], atol=1e-3)
