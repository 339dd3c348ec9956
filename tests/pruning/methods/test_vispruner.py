import pytest
import torch
from helpers import families
from helpers.contexts import context, pools_of
from helpers.families import TOKENS
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import VisPruner, prune
from prune2drive.pruning.vision import VisionTokens

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]
FAMILIES = ("llava", "llava_onevision", "internvl", "smolvlm")


def reference(received, features, k, important):
    """METHODS 6, one token at a time."""
    order = sorted(range(len(received)), key=lambda j: (-received[j], j))
    first = int(important * k)
    kept, residual = order[:first], order[first:]
    unit = features / features.norm(dim=1, keepdim=True)
    while (drop := min(8, len(residual) - (k - first))) > 0:
        evens, odds = residual[::2], residual[1::2]
        alike = {even: max((float(unit[even] @ unit[odd]) for odd in odds), default=0.0) for even in evens}
        ranked = sorted(evens, key=lambda even: -alike[even])
        residual = ranked[drop:] + odds
    return kept + residual


def view(received, features):
    return lambda: VisionTokens([received.flatten()], *[[features.flatten(0, 1)]] * 2)


def select(received_CN, features_CND, k, important=0.5):
    cameras = tuple(f"c{index}" for index in range(len(received_CN)))
    shown = context(*pools_of(received_CN.shape[1], cameras), vision=view(received_CN, features_CND))
    return VisPruner(important=important).select(features_CND, k, shown)


@given(st.integers(0, 1000), st.integers(9, 60), st.data())
def test_against_the_definition(seed, count, data):
    generator = torch.Generator().manual_seed(seed)
    received = torch.rand(2, count, generator=generator)
    features = torch.randn(2, count, 6, generator=generator)
    k, important = data.draw(st.integers(1, count)), data.draw(st.sampled_from([0.0, 0.3, 0.5, 1.0]))
    if int(important * k) > count - 2 or (k == 1 and important < 1):
        return
    found = select(received, features, k, important)
    for row in range(2):
        assert found[row].tolist() == reference(received[row].tolist(), features[row], k, important)


@given(st.integers(0, 100), st.integers(2, 40), st.integers(1, 40), st.floats(0, 1))
def test_counts(seed, count, k, important):
    if k > count:
        return
    generator = torch.Generator().manual_seed(seed)
    received, features = torch.rand(1, count, generator=generator), torch.randn(1, count, 4, generator=generator)
    found = select(received, features, k, important)[0].tolist()
    assert len(set(found)) == k
    best = received[0].argsort(descending=True)[: int(important * k)].tolist()
    assert set(best) <= set(found)


def test_attention_alone():
    received = torch.tensor([[0.1, 0.5, 0.2, 0.9]])
    assert select(received, torch.eye(4)[None], 2, important=1.0).tolist() == [[3, 1]]


def test_copies_go_first():
    """Pairs of equal tokens lose one each before anything else goes."""
    features = torch.eye(10).repeat_interleave(2, dim=0)[None]
    received = torch.arange(20, 0, -1).float()[None]
    kept = select(received, features, 12, important=0.0)[0]
    assert len({int(index) // 2 for index in kept}) == 10


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tower_s_attention_is_the_eager_one(name):
    """Of a batch of prompts with three images each, the first row of the class token's, or the mean over patches."""
    family = families.make(name, "eager")
    seen = {}

    class Probe(VisPruner):
        def select(self, tokens_CND, k, ctx):
            seen["received"], seen["features"] = ctx.vision().of_pools(ctx.pools)
            seen["keys"] = ctx.vision().at_pools(ctx.vision().keys, ctx.pools)
            return super().select(tokens_CND, k, ctx)

    inputs, naming = family.inputs(TEXTS), family.naming(TEXTS)
    with prune(family.model, Probe(), 0.3, **naming):
        family.model(**inputs)
    core = family.model.base_model
    tower = getattr(core, "vision_tower", None) or core.vision_model
    pixels = inputs["pixel_values"].reshape(-1, 3, *inputs["pixel_values"].shape[-2:])
    caught = {}
    layers = getattr(tower, "vision_model", tower).encoder
    layers = layers.layers if hasattr(layers, "layers") else layers.layer
    # Llava takes the features before the last layer.
    chosen = layers[-2] if name == "llava" else layers[-1]
    attend = getattr(chosen, "self_attn", None) or chosen.attention
    hook = attend.register_forward_hook(lambda module, args, out: caught.update(weights=out[1]))
    again = chosen.register_forward_hook(lambda module, args, out: caught.update(out=out))
    project = getattr(attend, "k_norm", attend.k_proj)
    third = project.register_forward_hook(lambda module, args, out: caught.update(keys=out))
    family.model.get_image_features(
        **{key: value for key, value in inputs.items() if "ids" not in key and "mask" not in key}
    )
    hook.remove()
    again.remove()
    third.remove()
    weights = caught["weights"].mean(dim=1)  # [I, T, T]
    has_class = name in ("llava", "internvl")
    received = weights[:, 0, 1:] if has_class else weights.mean(dim=1)
    out = caught["out"] if isinstance(caught["out"], torch.Tensor) else caught["out"][0]
    features = out[:, 1:] if has_class else out
    width = caught["keys"].shape[2] // 2  # of two heads
    keys = (caught["keys"][..., :width] + caught["keys"][..., width:])[:, has_class:] / 2
    if name in ("internvl", "smolvlm"):  # squares of four patches make a token
        received = torch.stack([square_means(each[:, None])[:, 0] for each in received])
        features, keys = (torch.stack([square_means(each) for each in part]) for part in (features, keys))
    assert len(pixels) == 6 and received.shape == (6, TOKENS)
    assert (seen["received"] - received).abs().max() < 1e-5
    assert (seen["features"] - features).abs().max() < 1e-4
    assert (seen["keys"] - keys).abs().max() < 1e-4


def square_means(states_TD):
    """Means over 2 x 2 patches of an 8 x 8 grid, cell by cell."""
    cells = []
    for row in range(4):
        for col in range(4):
            patches = [(2 * row + y) * 8 + 2 * col + x for y in (0, 1) for x in (0, 1)]
            cells.append(states_TD[patches].mean(dim=0))
    return torch.stack(cells)


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl", "llama"])
def test_a_tower_that_is_not_known(name):
    family = families.make(name)
    with pytest.raises(InputError, match="VisPruner reads the vision tower's attention, which is not known for"):
        with prune(family.model, VisPruner(), 0.3, **family.naming(TEXTS)):
            pass


def test_images_have_to_be_encoded_inside():
    family = families.make("llava")
    inputs = family.inputs(TEXTS)
    with pytest.raises(InputError, match="needs the images with the prompt"):
        with prune(family.model, VisPruner(), 0.3, **family.naming(TEXTS)):
            family.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])


def test_an_impossible_share():
    with pytest.raises(InputError, match="important=1.5 is no share"):
        VisPruner(important=1.5)
