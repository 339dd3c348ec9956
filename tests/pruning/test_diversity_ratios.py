import math

import pytest
import torch
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, Diversity, FastV, prune
from prune2drive.pruning.diversity_ratios import diversity
from prune2drive.pruning.surgery.checks import validate

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]


@st.composite
def scenes(draw):
    """Tokens of some cameras, and a budget for them."""
    counts = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    tokens = [torch.randn(count, 4, generator=generator, dtype=torch.float64) for count in counts]
    return tokens, draw(st.integers(len(counts), sum(counts)))


def order(tokens, k, **options):
    counts = {f"c{index}": len(each) for index, each in enumerate(tokens)}
    return Diversity(0.5, **options).allocate(torch.cat(tokens)[None], counts, k)[0].tolist()


def mean_distance(some, others):
    pairs = [1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)) for a in some for b in others]
    return math.fsum(pairs) / len(pairs) if pairs else 1.0


def worth(tokens, camera):
    others = [token for index, mine in enumerate(tokens) if index != camera for token in mine]
    return mean_distance(tokens[camera], tokens[camera]) * mean_distance(tokens[camera], others)


@given(scenes())
def test_diversity_is_that_of_all_pairs(scene):
    tokens, _ = scene
    found = diversity(torch.cat(tokens)[None], [len(each) for each in tokens])[0].tolist()
    assert found == pytest.approx([worth(tokens, camera) for camera in range(len(tokens))], abs=1e-12)


@given(scenes(), st.sampled_from([0.0, 1.0, 3.0]))
def test_the_order_is_spent_one_token_at_a_time(scene, exponent):
    """The next token goes to the camera with the largest share / (2 * tokens + 1) that has one left."""
    tokens, k = scene
    share = [max(worth(tokens, index), 1e-12) ** exponent * len(each) for index, each in enumerate(tokens)]
    spent = [1] * len(tokens)
    while sum(spent) < k:
        value = [
            share[index] / (2 * spent[index] + 1) if spent[index] < len(each) else -math.inf
            for index, each in enumerate(tokens)
        ]
        spent[next(index for index, each in enumerate(value) if each >= max(value) * (1 - 1e-9))] += 1
    found = order(tokens, k, exponent=exponent)
    assert found[: len(tokens)] == list(range(len(tokens))) and len(found) == k
    assert [found.count(camera) for camera in range(len(tokens))] == spent


def test_shares_are_rounded_after_sainte_lague():
    """Shares of 5 to 1, one token each: six more for the larger, then one for the smaller; d'Hondt would give nine."""
    tokens = torch.eye(48, dtype=torch.float64)
    assert order([tokens[:40], tokens[40:]], 9, exponent=0.0) == [0, 1, 0, 0, 0, 0, 0, 0, 1]


@given(scenes())
def test_a_smaller_budget_is_the_beginning_of_a_larger_one(scene):
    tokens, k = scene
    assert order(tokens, sum(map(len, tokens)))[:k] == order(tokens, k)


def test_diverse_cameras_and_those_unlike_the_others_get_more():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 20, 8, generator=generator, dtype=torch.float64)
    base = torch.eye(8, dtype=torch.float64)
    dull, busy, copy = base[0] + 0.1 * noise[0], base[1] + 1.0 * noise[1], base[0] + 0.1 * noise[2]
    spent = [order([dull, busy, copy], 24).count(camera) for camera in range(3)]
    assert spent[1] > 2 * max(spent[0], spent[2])
    alone = base[1] + 0.1 * noise[1]
    spent = [order([dull, alone, copy], 24).count(camera) for camera in range(3)]
    assert spent[1] > max(spent[0], spent[2])
    assert [order([dull, busy, copy], 24, exponent=0.0).count(camera) for camera in range(3)] == [8, 8, 8]


def test_cameras_of_one_colour_share_what_others_leave():
    flat = torch.ones(6, 3, dtype=torch.float64)
    rest = torch.eye(3, dtype=torch.float64)
    found = order([flat, rest, flat], 12)
    assert [found.count(camera) for camera in range(3)] in ([5, 3, 4], [4, 3, 5])


def test_in_a_model_totals_are_uniform_ones_and_batches_do_not_matter(make_family):
    family, sizes = make_family("llava"), []
    for rows in ([0, 1], [0], [1]):
        texts = [TEXTS[row] for row in rows]
        with prune(family.model, TFPS(), Diversity(0.25, exponent=8), **family.naming(texts)) as trace:
            family.model(**family.inputs(texts, rows))
        assert trace.kept_tokens == [len(CAMERAS) * TOKENS // 4] * len(rows)
        sizes += [[len(kept) for kept in row.values()] for row in trace.kept]
    assert sizes[:2] == sizes[2:] and any(len(set(row)) > 1 for row in sizes)


def test_bad_options_are_refused(make_family):
    for options, says in (({"keep": 0}, "ratios.keep = 0"), ({"exponent": -1}, "ratios.exponent=-1")):
        with pytest.raises(InputError, match=says):
            Diversity(**options)
    with pytest.raises(InputError, match="Diversity ratios share a budget .* FastV makes one pool"):
        validate(FastV(scope="global"), Diversity(), make_family("llava").model.config)
