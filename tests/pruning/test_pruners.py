import copy
from dataclasses import dataclass

import pytest
import torch
from helpers import families
from helpers.contexts import context
from helpers.families import CAMERAS, TOKENS
from hydra.utils import instantiate
from omegaconf import OmegaConf

import prune2drive.pruning as pruning
from prune2drive.pruning import MMR, TFPS, FastV, MMTok, NoPruner, Pruner, RandomPruner, Staged, Traits, prune
from prune2drive.pruning.pool import Pool
from prune2drive.token_map import TokenMap

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]

CLASSES = [
    made
    for name in pruning.__all__
    if isinstance(made := getattr(pruning, name), type)
    and issubclass(made, Pruner)
    and made not in (NoPruner, pruning.LearnedScorer)  # which needs a file of weights for the model
    and not made.__abstractmethods__
]
METHODS: dict[str, Pruner] = {made.__name__: made() for made in CLASSES}
METHODS |= {
    f"{made.__name__}-global": made(scope="global")
    for made in CLASSES
    if "global" in made().traits.scopes and made is not Staged  # its scope is its method's
}
METHODS |= {
    f"TFPS-{name}": TFPS(**options)
    for name, options in {
        "l1": {"metric": "l1"},
        "l2": {"metric": "l2"},
        "nearest": {"mode": "nearest"},
        "centroid": {"start": "centroid"},
        "random": {"start": "random"},
        "index": {"start": 5},
        "question": {"relevance": "question"},
        "saliency": {"relevance": "saliency"},
        "bfloat16": {"dtype": "bfloat16", "layer": 0},
    }.items()
}
METHODS["MMTok-tokens"] = MMTok(features="tokens")
METHODS |= {f"MMR-{name}": MMR(importance=name) for name in ("question", "norm")}
METHODS |= {
    f"Staged-{name}": Staged(pruner=method, layers=[1, 3])
    for name, method in METHODS.items()
    if name in ("FastV", "FastV-global", "RandomPruner", "UniformPruner", "TFPS-global", "TFPS-random")
}
for path in families.PRUNERS:
    method = instantiate(OmegaConf.create({"seed": 0, "pruner": OmegaConf.load(path)}).pruner)
    if not isinstance(method, NoPruner):
        METHODS[path.name] = method
for method in METHODS.values():
    method.layer = min(method.layer, 3)  # the tiny decoder has four layers

# Bare decoders have no vision tower.
METHODS = {
    name: method for name, method in METHODS.items() if not (method.traits.needs_vision or method.traits.resizes_images)
}


@pytest.fixture(params=METHODS)
def method(request) -> Pruner:
    return METHODS[request.param]


@pytest.fixture
def llama(make_family):
    return make_family("llama")


def run(family, method, keep, texts=TEXTS, change=None):
    """The trace of one prefill of a bare decoder; `change` adds noise to one camera's tokens."""
    inputs, maps = family.inputs(texts), [families.text_map(text) for text in texts]
    embeds = family.model.get_input_embeddings()(inputs["input_ids"]).detach().clone()
    for row, token_map in enumerate(maps):
        generator = torch.Generator().manual_seed(row)
        embeds[row, -token_map.length :] += torch.randn(token_map.length, embeds.shape[2], generator=generator)
        if change:
            at = token_map.positions(change) - token_map.length
            embeds[row, at] += torch.randn(len(at), embeds.shape[2], generator=generator)
    with prune(family.model, method, keep, token_map=maps, sample_ids=["a", "b"][: len(texts)]) as trace:
        mask = inputs["attention_mask"]
        ids = (mask.cumsum(dim=1) - 1).clamp(min=0)  # as `generate` counts: keys depend on them
        family.model(inputs_embeds=embeds, attention_mask=mask, position_ids=ids)
    return trace


def picks(trace):
    return [{camera: kept.tolist() for camera, kept in row.items()} for row in trace.picked]


# Every method


@pytest.mark.parametrize("keep", [0.05, 0.3, 0.71])
def test_exactly_the_budget_each_token_once_in_order(llama, method, keep):
    trace = run(llama, method, keep)
    budget = max(1, int(keep * TOKENS + 0.5))
    assert trace.kept_tokens == [len(CAMERAS) * budget] * len(TEXTS)
    for row in trace.kept:
        assert list(row) == list(CAMERAS)
        for kept in row.values():
            assert method.scope == "global" or len(kept) == budget
            assert (kept.diff() > 0).all()
            assert len(kept) == 0 or (kept[0] >= 0 and kept[-1] < TOKENS)
    assert [[sorted(camera) for camera in row.values()] for row in picks(trace)] == [
        [kept.tolist() for kept in row.values()] for row in trace.kept
    ]


def test_ratios_per_camera(llama, method):
    """A camera's tokens are those it keeps when all cameras have its ratio."""
    keep = dict(zip(CAMERAS, (0.1, 0.5, 0.9), strict=True))
    trace = run(llama, method, keep)
    assert trace.kept_tokens == [2 + 8 + 14] * len(TEXTS)
    if method.scope == "per_camera" and len(method.resolve(4).cuts) == 1:
        for camera, ratio in keep.items():
            alike = picks(run(llama, method, ratio))
            assert [row[camera] for row in picks(trace)] == [row[camera] for row in alike]


def test_the_same_twice(llama, method):
    assert picks(run(llama, method, 0.3)) == picks(run(llama, method, 0.3))


def test_a_smaller_budget_keeps_the_first_of_a_larger_one(llama, method):
    if not method.traits.nested:
        return
    small, large = picks(run(llama, method, 0.2)), picks(run(llama, method, 0.6))
    for row_small, row_large in zip(small, large, strict=True):
        for camera in CAMERAS:
            assert row_small[camera] == row_large[camera][: len(row_small[camera])]


def test_a_camera_is_pruned_by_itself(llama, method):
    """At layer 0, where no layer has mixed the cameras yet."""
    if method.scope == "global" or method.traits.needs_attention or len(method.resolve(4).cuts) > 1:
        return
    if method.traits.reads_other_cameras:
        return
    method = copy.copy(method)
    method.layer = 0
    before, after = picks(run(llama, method, 0.3)), picks(run(llama, method, 0.3, change=CAMERAS[1]))
    for row_before, row_after in zip(before, after, strict=True):
        for camera in (CAMERAS[0], CAMERAS[2]):
            assert row_before[camera] == row_after[camera]
        if isinstance(method, TFPS):
            assert row_before[CAMERAS[1]] != row_after[CAMERAS[1]]


def test_the_rest_of_the_batch_does_not_matter(llama, method):
    together = picks(run(llama, method, 0.3))
    assert picks(run(llama, method, 0.3, TEXTS[:1]))[0] == together[0]


def test_every_token_is_a_choice(llama, method):
    """With a ratio of 1 all are kept, in every order a method may have."""
    trace = run(llama, method, {**dict.fromkeys(CAMERAS, 1.0), CAMERAS[0]: 0.99})
    assert all(kept.tolist() == list(range(TOKENS)) for row in trace.kept for kept in row.values())


# Farthest points


def test_the_global_pool_covers_all_cameras(llama):
    trace = run(llama, TFPS(scope="global"), 0.3)
    assert any(len(kept) != 5 for row in trace.kept for kept in row.values())


def test_starts_are_drawn_for_each_sample_and_camera(llama):
    first = [run(llama, TFPS(start="random", seed=seed), 0.05).picked for seed in range(8)]
    for row, camera in ((0, CAMERAS[0]), (0, CAMERAS[1]), (1, CAMERAS[0])):
        assert len({picked[row][camera].item() for picked in first}) > 2
    drawn = [[picked[row][camera].item() for picked in first] for row in (0, 1) for camera in CAMERAS]
    assert len({tuple(draws) for draws in drawn}) == len(drawn)


def test_half_precision_selection_differs(make_family):
    assert picks(run(make_family("llama"), TFPS(dtype="bfloat16"), 0.9)) != picks(
        run(make_family("llama"), TFPS(), 0.9)
    )


# Random


def draw(seed=0, sample="a", camera="CAM_FRONT", k=4, others=()):
    token_map = TokenMap.from_spans({camera: (0, TOKENS)}, TOKENS)
    pools = [*others, Pool(sample, (camera,), 0, torch.arange(TOKENS), token_map, torch.arange(TOKENS))]
    tokens = torch.zeros(len(pools), TOKENS, 1)
    return RandomPruner(seed=seed).select(tokens, k, context(*pools))[-1].tolist()


def test_draws_depend_on_seed_sample_and_camera_alone():
    token_map = TokenMap.from_spans({"CAM_BACK": (0, TOKENS)}, TOKENS)
    other = Pool("b", ("CAM_BACK",), 0, torch.arange(TOKENS), token_map, torch.arange(TOKENS))
    assert draw() == draw(others=[other])
    draws = [draw(), draw(seed=1), draw(sample="b"), draw(camera="CAM_BACK")]
    assert len({tuple(picked) for picked in draws}) == len(draws)


def test_draws_are_uniform():
    """Chi-square over 2000 samples: 15 degrees of freedom stay below 37.7 with probability 0.999."""
    counts = torch.zeros(TOKENS)
    for sample in range(2000):
        counts[draw(sample=str(sample))] += 1
    expected = 2000 * 4 / TOKENS
    assert ((counts - expected) ** 2 / expected / (1 - 4 / TOKENS)).sum() < 37.7


def test_a_prompt_without_a_name_is_known_by_its_text(make_family):
    family = make_family("llava")
    inputs, swapped = family.inputs(TEXTS, [0, 1]), family.inputs(TEXTS[::-1], [1, 0])
    with prune(family.model, RandomPruner(), 0.3, cameras=CAMERAS) as trace:
        family.model(**inputs)
        first = picks(trace)
        family.model(**swapped)
        assert picks(trace) == first[::-1]
        family.model(**family.inputs(TEXTS[:1], [0]))
    assert picks(trace) == first[:1]
    assert first[0] != first[1]


# FastV


@dataclass
class Probe(Pruner):
    """Keeps the first tokens and remembers the attention it was shown."""

    traits = Traits(needs_attention=True)

    def select(self, tokens_CND, k, ctx):
        self.attention_BP = ctx.before.last_row()
        self.rows_HQP = ctx.before.rows(1, torch.tensor([-3, -1]) + self.attention_BP.shape[1])
        return torch.arange(k).expand(len(tokens_CND), k)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("layer", [1, 3])
def test_the_row_equals_eager_attention(family, layer, use_cache):
    inputs, probe = family.inputs(TEXTS), Probe(layer=layer)
    with prune(family.model, probe, 0.3, **family.naming(TEXTS)):
        family.model(**inputs, use_cache=use_cache)
    used = family.model.config._attn_implementation
    family.model.set_attn_implementation("eager")
    attention = family.model(**inputs, output_attentions=True).attentions[layer - 1]
    family.model.set_attn_implementation(used)
    assert (probe.attention_BP - attention[:, :, -1].mean(dim=1)).abs().max() < 1e-5
    torch.testing.assert_close(probe.attention_BP.sum(1), torch.ones(len(TEXTS)))
    assert (probe.rows_HQP - attention[1][:, [-3, -1]]).abs().max() < 1e-5


@pytest.mark.parametrize("scope", ["per_camera", "global"])
def test_fastv_keeps_what_is_attended_to_most(make_family, scope):
    family = make_family("qwen3_vl")
    inputs, naming = family.inputs(TEXTS), family.naming(TEXTS)
    probe = Probe(layer=2)
    with prune(family.model, probe, 0.3, **naming):
        family.model(**inputs)
    with prune(family.model, FastV(layer=2, scope=scope), 0.3, **naming) as trace:
        family.model(**inputs)
    for row, token_map in enumerate(trace.token_maps):
        start = probe.attention_BP.shape[1] - token_map.length
        scores = {camera: probe.attention_BP[row, token_map.positions(camera) + start] for camera in CAMERAS}
        if scope == "per_camera":
            expected = {camera: score.topk(5).indices.tolist() for camera, score in scores.items()}
        else:
            best = torch.cat(list(scores.values())).topk(15).indices.tolist()
            expected = {
                camera: [at - i * TOKENS for at in best if at // TOKENS == i] for i, camera in enumerate(CAMERAS)
            }
        assert {camera: kept.tolist() for camera, kept in trace.picked[row].items()} == expected


def test_the_order_of_heads_does_not_matter(llama):
    shuffled = copy.deepcopy(llama)
    attention = shuffled.model.model.layers[1].self_attn
    groups, repeats, width = 2, 2, attention.head_dim
    with torch.no_grad():
        for name, heads in (("q_proj", groups * repeats), ("k_proj", groups), ("v_proj", groups)):
            weight = getattr(attention, name).weight
            weight.copy_(weight.view(groups, heads // groups * width, -1).flip(0).reshape(weight.shape))
        weight = attention.o_proj.weight
        weight.copy_(weight.view(-1, groups, repeats * width).flip(1).reshape(weight.shape))
    assert not torch.equal(attention.q_proj.weight, llama.model.model.layers[1].self_attn.q_proj.weight)
    assert picks(run(shuffled, FastV(layer=2), 0.3)) == picks(run(llama, FastV(layer=2), 0.3))
