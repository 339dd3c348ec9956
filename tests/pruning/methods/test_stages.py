"""Methods that cut several times, and the hooks under them."""

import pytest
import torch
from helpers import families
from helpers.families import CAMERAS, TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, FastV, PyramidDrop, Staged, UniformPruner, VisPruner, prune

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25], [31]]
COUNTS = [3, 2, 3]  # cameras in each prompt


# Sizes and layers


@given(st.integers(1, 5000), st.data())
def test_every_cut_keeps_the_same_share(count, data):
    k = data.draw(st.integers(1, count))
    layers = sorted(data.draw(st.sets(st.integers(1, 40), min_size=1, max_size=6)))
    sizes = PyramidDrop(layers=layers).sizes(k, count)
    assert len(sizes) == len(layers) and sizes[-1] == k
    for stage, size in enumerate(sizes, start=1):
        assert abs(size - count ** (1 - stage / len(layers)) * k ** (stage / len(layers))) <= 0.5 + 1e-6 * count
    assert all(a >= b for a, b in zip([count, *sizes], sizes, strict=False))


def test_the_authors_stages():
    assert PyramidDrop().resolve(32).cuts == (8, 16, 24)
    assert PyramidDrop().resolve(32).sizes(72, 576) == [288, 144, 72]
    assert PyramidDrop().resolve(4).cuts == (1, 2, 3)
    assert PyramidDrop().resolve(5).cuts == (1, 2, 4)
    given = PyramidDrop(layers=[2, 5])
    assert given.resolve(32) is given and given.cuts == (2, 5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PyramidDrop(layers=[0, 2]), "layers=.*1 or higher"),
        (lambda: PyramidDrop(layers=[2, 2]), "ascending"),
        (lambda: PyramidDrop(layers=[]), "one or more"),
        (lambda: PyramidDrop(layers=["1"]), "layers="),
        (lambda: Staged(layers=[-1, 2]), "0 or higher"),
        (lambda: Staged(pruner=FastV(), layers=[0, 2]), "1 or higher"),
        (lambda: Staged(pruner=PyramidDrop()), "PyramidDrop already cuts several times"),
        (lambda: PyramidDrop().cuts, "resolve"),
    ],
)
def test_bad_layers_are_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize("layers", [[1, 4], [5]])
def test_layers_the_decoder_does_not_have_are_refused(make_family, layers):
    with pytest.raises(InputError, match="0 to 3"), prune(make_family("llava").model, PyramidDrop(layers=layers), 0.1):
        pass


# PyramidDrop, by eager attention of a model whose first layers see fewer tokens


@pytest.mark.parametrize("scope", ["per_camera", "global"])
@pytest.mark.parametrize("positions", ["keep", "renumber"])
@pytest.mark.parametrize("name", ["llama", "qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_pyramiddrop_keeps_what_the_next_layer_attends_to(make_family, name, positions, scope):
    """Each cut's candidates are scored by the eager attention of a run that is cut as far as the one before."""
    family = make_family(name, "eager")
    inputs, naming = family.inputs(TEXTS, counts=COUNTS), family.naming(TEXTS, COUNTS)
    pruner = PyramidDrop(layers=[1, 2, 3], scope=scope)
    with prune(family.model, pruner, 0.12, positions=positions, **naming) as trace:
        family.model(**inputs)
    before = [{camera: torch.arange(TOKENS) for camera in CAMERAS[:count]} for count in COUNTS]
    for stage, layer in enumerate(pruner.cuts):
        attention, length = next_attention(family, inputs, naming, pruner, positions, stage)
        upto = kept_upto(family, inputs, naming, pruner, positions, stage + 1)
        for row, cameras in enumerate(before):
            token_map = trace.token_maps[row]
            alive = torch.cat([token_map.positions(camera)[kept] for camera, kept in cameras.items()])
            text = (token_map.view_P < 0).nonzero().flatten()
            at = torch.cat([text, alive]).sort().values
            place = {int(where): length - len(at) + index for index, where in enumerate(at)}
            scores = {
                camera: attention[row, [place[int(where)] for where in token_map.positions(camera)[kept]]]
                for camera, kept in cameras.items()
            }
            size = round(TOKENS * (2 / TOKENS) ** ((stage + 1) / 3))
            if scope == "per_camera":
                expected = {c: set(cameras[c][scores[c].topk(size).indices].tolist()) for c in cameras}
            else:
                total = round(len(cameras) * TOKENS * (2 / TOKENS) ** ((stage + 1) / 3))
                joined = [(c, int(i)) for c in cameras for i in cameras[c]]
                best = torch.cat(list(scores.values())).topk(total).indices.tolist()
                expected = {c: {joined[at][1] for at in best if joined[at][0] == c} for c in cameras}
            found = {camera: set(kept.tolist()) for camera, kept in upto[row].items()}
            assert found == expected
        assert all(stages[stage][0] == layer for stages in trace.stages)
        before = upto
    for row, cameras in enumerate(before):
        assert all(torch.equal(kept, trace.kept[row][camera]) for camera, kept in cameras.items())


class Upto(PyramidDrop):
    """PyramidDrop's cuts up to one of them; what is left after the last of these goes through all layers."""

    stages = 3

    def sizes(self, k, count):
        sizes = super().sizes(k, count)
        return [*sizes[: self.stages], *[sizes[self.stages - 1] if self.stages else count] * (3 - self.stages)]


def kept_upto(family, inputs, naming, pruner, positions, stages):
    method = Upto(layers=pruner.layers, scope=pruner.scope)
    method.stages = stages
    with prune(family.model, method, 0.12, positions=positions, **naming) as trace:
        family.model(**inputs)
    return trace.kept


def next_attention(family, inputs, naming, pruner, positions, stages):
    """Mean over heads of the last row of eager attention in the layer of the next cut, [B, K]."""
    method = Upto(layers=pruner.layers, scope=pruner.scope)
    method.stages = stages
    with prune(family.model, method, 0.12, positions=positions, **naming):
        attention = family.model(**inputs, output_attentions=True).attentions[pruner.cuts[stages]]
    return attention[:, :, -1].mean(dim=1), attention.shape[-1]


# Any method in stages


def test_one_stage_is_the_method_itself(make_family):
    family = make_family("llava_onevision")
    inputs, naming = family.inputs(TEXTS, counts=COUNTS), family.naming(TEXTS, COUNTS)
    for method in (TFPS(layer=2), TFPS(layer=2, scope="global"), FastV(layer=2), UniformPruner(layer=2)):
        with prune(family.model, method, 0.3, **naming) as trace:
            logits = family.model(**inputs).logits
        with prune(family.model, Staged(pruner=method, layers=[2]), 0.3, **naming) as staged:
            assert torch.equal(family.model(**inputs).logits, logits)
        assert trace.stages == staged.stages
        assert all(torch.equal(a, b) for a, b in zip(trace.positions, staged.positions, strict=True))


def test_staged_is_what_the_method_is():
    for method in (TFPS(dtype="bfloat16"), FastV(scope="global"), UniformPruner(), VisPruner()):
        staged = Staged(pruner=method)
        assert (staged.scope, staged.dtype) == (method.scope, method.dtype)
        for name in ("scopes", "positions", "needs_attention", "needs_vision"):
            assert getattr(staged.traits, name) == getattr(method.traits, name)
        assert staged.resolve(32).scope == method.scope
        assert staged.flops(16, 4, 8) == method.flops(16, 4, 8)


def test_a_lattice_of_what_a_cut_left_takes_the_nearest():
    """A 4 x 4 grid: six points, of which those that lie on a lattice of three are taken first."""
    family = families.make("llava")
    with prune(family.model, Staged(pruner=UniformPruner(), layers=[1, 2]), 0.25, cameras=CAMERAS) as trace:
        family.model(**family.inputs(TEXTS[:1]))
    with prune(family.model, UniformPruner(), 0.5, cameras=CAMERAS) as first:
        family.model(**family.inputs(TEXTS[:1]))
    for camera in CAMERAS:
        kept, half = set(trace.kept[0][camera].tolist()), set(first.kept[0][camera].tolist())
        assert kept < half and len(kept) == 4
