"""A shared budget inside a model: totals are those of uniform ratios at every cut, of every method, in every batch."""

from dataclasses import dataclass

import pytest
import torch
from helpers.families import CAMERAS, PRUNERS, SIZES, TOKENS
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prune2drive.errors import InputError
from prune2drive.pruning import TFPS, Allocator, Dynamic, NoPruner, Staged, Uniform, prune
from prune2drive.pruning.dynamic_ratios import POOLS
from prune2drive.token_map import TokenMap

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25], [31]]
COUNTS = [3, 2, 3]  # cameras in each prompt


def methods():
    for path in PRUNERS:
        made = instantiate(OmegaConf.create({"seed": 0, "pruner": OmegaConf.load(path)}).pruner)
        is_left_out = isinstance(made, NoPruner) or made.traits.resizes_images
        if not is_left_out and "per_camera" in made.traits.scopes:
            made.layer = min(made.layer, SIZES["num_hidden_layers"] - 1)
            made.scope = "per_camera"
            yield pytest.param(made, id=path.stem)


@torch.no_grad()
def prefill(family, pruner, policy, texts=TEXTS, counts=COUNTS, seeds=None, **options):
    with prune(family.model, pruner, policy, **family.naming(texts, counts), **options) as trace:
        family.model(**family.inputs(texts, seeds, counts))
    return trace


def sizes(trace):
    return [[len(kept) for kept in row.values()] for row in trace.kept]


@dataclass
class ToTheFirst(Uniform, Allocator):
    """One token each, then all that the first cameras have."""

    def allocate(self, tokens_RMD, counts, k):
        assert tokens_RMD.shape[:2] == (len(tokens_RMD), sum(counts.values()))
        order = list(range(len(counts)))
        order += [camera for camera, count in enumerate(counts.values()) for _ in range(count - 1)]
        return torch.tensor(order[:k]).expand(len(tokens_RMD), -1)

    def flops(self, counts, k, channels):
        return k


@pytest.mark.parametrize("pruner", methods())
@pytest.mark.parametrize("pool", POOLS)
def test_every_method_keeps_the_total(make_family, pruner, pool):
    family = make_family("llava_onevision")
    even, shared = (prefill(family, pruner, policy) for policy in (Uniform(0.25), Dynamic(0.25, pool)))
    assert shared.kept_tokens == shared.nominal_tokens == even.kept_tokens == [12, 8, 12]
    assert shared.stages == even.stages
    assert sizes(shared) != sizes(even) and all(1 <= size <= TOKENS for row in sizes(shared) for size in row)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("name", ["llama", "qwen2_5_vl", "qwen3_vl", "llava_onevision", "internvl"])
def test_a_prompt_keeps_the_same_alone_and_in_a_padded_batch(make_family, name, pool):
    family, pruner = make_family(name), TFPS(layer=1)
    together = prefill(family, pruner, Dynamic(0.25, pool))
    for row, (text, count) in enumerate(zip(TEXTS, COUNTS, strict=True)):
        alone = prefill(family, pruner, Dynamic(0.25, pool), [text], [count], [row])
        assert alone.kept[0].keys() == together.kept[row].keys()
        for camera, kept in alone.kept[0].items():
            assert torch.equal(kept, together.kept[row][camera])


@pytest.mark.parametrize("layer", [0, 2])
def test_the_states_that_enter_the_cut_decide(make_family, layer):
    family = make_family("llama")
    inputs, naming = family.inputs([[11, 12]]), family.naming([[11, 12]])
    with torch.no_grad():
        states_PD = family.model(**inputs, output_hidden_states=True).hidden_states[layer][0]
    tokens = torch.cat([states_PD[naming["token_map"][0].positions(camera)] for camera in CAMERAS])
    for pool in POOLS:
        policy = Dynamic(0.3, pool)
        spent = policy.allocate(tokens[None], dict.fromkeys(CAMERAS, TOKENS), 15)[0]
        found = sizes(prefill(family, TFPS(layer=layer), policy, [[11, 12]], [3]))
        assert found == [spent.bincount(minlength=3).tolist()]


def test_cuts_in_stages_count_in_one_order(make_family):
    family, pruner = make_family("llama"), Staged(pruner=TFPS(), layers=[1, 3])
    trace = prefill(family, pruner, ToTheFirst(0.25))
    assert trace.stages == [[(1, 24), (3, 12)], [(1, 16), (3, 8)], [(1, 24), (3, 12)]]
    assert sizes(trace) == [[10, 1, 1], [7, 1], [10, 1, 1]]


def test_cameras_of_different_sizes(make_family):
    family = make_family("llama")
    maps = [
        TokenMap.from_spans({"CAM_FRONT": (1, 31), "CAM_BACK": (31, 35)}, 40),
        TokenMap.from_spans({"CAM_FRONT": (1, 5), "CAM_BACK": (5, 35)}, 40),
        TokenMap.from_spans({"CAM_BACK": (1, 5), "CAM_FRONT": (5, 35)}, 40),
    ]
    ids = torch.randint(10, 90, (3, 40), generator=torch.Generator().manual_seed(0))
    for policy, expected in ((ToTheFirst(0.5), [[16, 1], [4, 13], [4, 13]]), (Dynamic(0.5, "radius"), None)):
        with prune(family.model, TFPS(layer=1), policy, token_map=maps) as trace:
            family.model(input_ids=ids)
        assert trace.kept_tokens == [17, 17, 17]
        assert [list(row) for row in trace.kept] == [list(each.cameras) for each in maps]
        assert expected is None or sizes(trace) == expected


def test_a_layer_average_is_that_of_uniform_ratios(make_family):
    family = make_family("llama")
    for pruner in (TFPS(layer=1), Staged(pruner=TFPS(), layers=[1, 2])):
        even, shared = (
            prefill(family, pruner, policy, budget_axis="layer_average") for policy in (Uniform(0.5), Dynamic(0.5))
        )
        assert shared.stages == even.stages and shared.nominal_tokens == even.nominal_tokens == [24, 16, 24]
        assert sizes(shared) != sizes(even)


def test_other_options_are_those_of_uniform_ratios(make_family):
    family = make_family("llama")
    for options, total in (({"rounding": "seed"}, 9), ({"positions": "renumber"}, 12)):
        even, shared = (prefill(family, TFPS(layer=1), policy(0.24), **options) for policy in (Uniform, Dynamic))
        assert shared.kept_tokens == shared.nominal_tokens == even.kept_tokens == [total, total * 2 // 3, total]


def test_sharing_counts_as_selection(make_family):
    family, pruner = make_family("llama"), TFPS(layer=1)
    given = prefill(family, pruner, ToTheFirst(0.25))
    own = [sum(pruner.flops(TOKENS, size, 32) for size in row) for row in sizes(given)]
    assert given.select_flops == [flops + total for flops, total in zip(own, [12, 8, 12], strict=True)]
    even, joint, radius = (
        prefill(family, pruner, policy).select_flops[0]
        for policy in (Uniform(0.25), Dynamic(0.25), Dynamic(0.25, "radius"))
    )
    assert joint - even == pytest.approx(2 * 48 * 48 * 32, rel=0.01)
    assert radius - even == pytest.approx(3 * 2 * 16 * 16 * 32, rel=0.01)


def test_nothing_is_shared_where_all_is_kept(make_family):
    family = make_family("llama")
    for pruner, keep in ((TFPS(layer=1), 1.0), (NoPruner(), 0.25), (NoPruner(scope="global"), 0.25)):
        even, shared = (prefill(family, pruner, policy) for policy in (Uniform(keep), Dynamic(keep)))
        assert shared.kept_tokens == [48, 32, 48] and shared.select_flops == even.select_flops


def test_one_pool_has_nothing_to_share(make_family):
    with pytest.raises(
        InputError, match="Dynamic ratios share .* scope=global TFPS makes one pool .*per_camera"
    ) as said:
        prefill(make_family("llama"), TFPS(scope="global"), Dynamic(0.25))
    assert "\n" not in str(said.value)


def test_weights_are_checked_before_the_model_runs(make_family):
    family = make_family("llava_onevision")
    policy = Dynamic(0.25, weights={"CAM_FRONT": 2})
    with pytest.raises(InputError, match="no weight for camera CAM_FRONT_LEFT"):
        with prune(family.model, TFPS(), policy, **family.naming(TEXTS)):
            pass
