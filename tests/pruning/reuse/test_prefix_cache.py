"""Prompts whose images and first layers come from a store are answered as if they were computed anew."""

from types import SimpleNamespace

import pytest
import torch
from helpers.families import CAMERAS, PAD
from transformers import DynamicCache

from prune2drive.errors import InputError
from prune2drive.models.prompts import Prompts
from prune2drive.pruning import TFPS, FastV, NoPruner, PyramidDrop, VisPruner, prune
from prune2drive.pruning.base import Traits
from prune2drive.pruning.reuse.prefix_cache import CacheEntry, check_reuse, fingerprint, reuse, untouched_layers
from prune2drive.pruning.reuse.prefix_store import PrefixStore
from prune2drive.pruning.reuse.prune import prune_reusing
from prune2drive.pruning.reuse.selection_cache import SelectionCache
from prune2drive.pruning.reuse.shared_prefix import PromptPrefix

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25], [31]]
NAMES = ("llava_onevision", "llava", "internvl", "smolvlm", "qwen2_5_vl")
METHODS = {
    "tfps": lambda: TFPS(layer=1),
    "before the LLM": lambda: TFPS(layer=0),
    "attention": lambda: FastV(layer=2),
    "attention of layer 0": lambda: FastV(layer=1),
    "stages": lambda: PyramidDrop().resolve(4),
    "none": lambda: NoPruner(),
}
STEPS = 4


def prompts(family, texts=TEXTS, **options):
    """Inputs, and each prompt's ids without padding with the map of its visual tokens."""
    inputs = family.inputs(texts, **options)
    with torch.inference_mode(), prune(family.model, NoPruner(), 1.0, cameras=CAMERAS) as trace:
        family.model(**inputs)
    ids = [row[mask.bool()] for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    return inputs, list(zip(ids, trace.token_maps, strict=True))


def rows_of(pruner, prompts_):
    return [
        CacheEntry.of(f"{untouched_layers(pruner)}", f"frame {place}", f"sample {place}", ids, token_map)
        for place, (ids, token_map) in enumerate(prompts_)
    ]


def answers(model, inputs, pruner, keep, maps=None, **options):
    naming = {"token_map": maps} if maps else {"cameras": CAMERAS}
    with torch.inference_mode(), prune(model, pruner, keep, **naming) as trace:
        found = model.generate(
            **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
        )
    return found.sequences, torch.stack(found.logits), trace


def without_images(inputs):
    return {name: value for name, value in inputs.items() if name != "pixel_values"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_answers_are_the_same_from_the_store(make_family, name, method, monkeypatch):
    family, pruner, store = make_family(name), METHODS[method](), PrefixStore(1)
    model = family.model
    inputs, found = prompts(family)
    rows = rows_of(pruner, found)
    with reuse(model, untouched_layers(pruner), store, rows) as replay:
        first = answers(model, inputs, pruner, 0.5)
    assert not replay.is_known and all(row.is_in(store) for row in rows)
    plain = {keep: answers(model, inputs, pruner, keep) for keep in (0.5, 0.2, 1.0)}
    assert torch.equal(first[1], plain[0.5][1])

    def fail(*args, **kwargs):
        raise AssertionError("images are encoded again")

    monkeypatch.setattr(model.base_model, "get_image_features", fail)
    for keep, (ids, logits, trace) in plain.items():
        with reuse(model, untouched_layers(pruner), store, rows) as replay:
            again_ids, again_logits, again = answers(
                model, without_images(inputs), pruner, keep, [each for _, each in found]
            )
        assert replay.is_known
        assert torch.equal(again_ids, ids) and torch.allclose(again_logits, logits, atol=1e-5)
        assert all(torch.equal(one, other) for one, other in zip(again.positions, trace.positions, strict=True))


def test_the_layers_before_the_cut_are_not_computed(make_family, monkeypatch):
    family, pruner, store = make_family("llava_onevision"), TFPS(layer=2), PrefixStore(1)
    inputs, found = prompts(family)
    rows = rows_of(pruner, found)
    with reuse(family.model, 2, store, rows):
        answers(family.model, inputs, pruner, 0.5)
    lengths = []
    for layer in family.model.get_decoder().layers[:3]:
        monkeypatch.setattr(
            layer.mlp, "forward", lambda hidden, run=layer.mlp.forward: lengths.append(hidden.shape[1]) or run(hidden)
        )
    with reuse(family.model, 2, store, rows):
        *_, trace = answers(family.model, without_images(inputs), pruner, 0.5)
    kept = max(map(len, trace.positions))
    assert lengths == [kept] + [1] * 3 * (STEPS - 1)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_answers_are_recalled_with_their_prompts(make_family, layer, monkeypatch):
    """What is said behind a prompt with an answer behind it, from the store and anew."""
    family, pruner, store = make_family("llava_onevision"), TFPS(layer=layer), PrefixStore(1)
    model = family.model
    inputs, found = prompts(family)
    rows, maps = rows_of(pruner, found), tuple(token_map for _, token_map in found)
    with reuse(model, layer, store, rows) as replay:
        answers(model, inputs, pruner, 0.9)
        said, *_ = answers(model, inputs, pruner, 0.5)
    said = [ids.tolist() for ids in said[:, inputs["input_ids"].shape[1] :]]
    said[1], said[2] = said[1][:2], said[2][:1]  # as if these had ended sooner
    replay.keep_answers(said)
    drafted = Prompts(inputs, maps).followed_by([ids[:-1] for ids in said], PAD)
    longer = [row.followed_by(ids[:-1]) for row, ids in zip(rows, said, strict=True)]
    assert all(row.is_in(store) for row in longer) and longer[2] == rows[2]
    assert not rows[0].followed_by([1, 2]).is_in(store)
    with torch.inference_mode(), prune(model, pruner, 0.2, token_map=drafted.token_maps) as trace:
        expected = model(**drafted.inputs, logits_to_keep=STEPS).logits

    def fail(*args, **kwargs):
        raise AssertionError("computed again")

    for module in model.get_decoder().layers[:layer]:
        monkeypatch.setattr(module.mlp, "forward", fail)
    with (
        torch.inference_mode(),
        reuse(model, layer, store, longer, prefill_only=True) as replay,
        prune(model, pruner, 0.2, token_map=drafted.token_maps) as again,
    ):
        short = drafted.without_images().inputs
        logits = model(**short, logits_to_keep=STEPS, past_key_values=DynamicCache()).logits
    assert replay.is_known
    assert all(torch.equal(*each) for each in zip(again.positions, trace.positions, strict=True))
    for row, ids in enumerate(said):
        assert torch.allclose(logits[row, -len(ids) :], expected[row, -len(ids) :], atol=1e-4)


def test_rows_may_come_in_other_batches_and_orders(make_family):
    family, pruner, store = make_family("internvl"), TFPS(layer=1), PrefixStore(1)
    inputs, found = prompts(family)
    rows = rows_of(pruner, found)
    with reuse(family.model, 1, store, rows):
        answers(family.model, inputs, pruner, 0.5)
    turned = [TEXTS[2], TEXTS[0]]
    expected = family.inputs(turned, seeds=[2, 0])
    with reuse(family.model, 1, store, [rows[2], rows[0]]) as replay:
        again, *_ = answers(family.model, without_images(expected), pruner, 0.3)
    assert replay.is_known and torch.equal(again, answers(family.model, expected, pruner, 0.3)[0])


def test_beams_repeat_what_is_stored(make_family):
    family, pruner, store = make_family("llava_onevision"), TFPS(layer=1), PrefixStore(1)
    inputs, found = prompts(family)
    rows = rows_of(pruner, found)
    expected, *_ = answers(family.model, inputs, pruner, 0.3, num_beams=2)
    with reuse(family.model, 1, store, rows):
        answers(family.model, inputs, pruner, 0.5)
    with reuse(family.model, 1, store, rows):
        again, *_ = answers(family.model, without_images(inputs), pruner, 0.3, num_beams=2)
    assert torch.equal(again, expected)


def test_nothing_is_left_on_the_model(make_family):
    family, pruner, store = make_family("llava"), TFPS(layer=2), PrefixStore(1)
    inputs, found = prompts(family)
    before = answers(family.model, inputs, NoPruner(), 1.0)[1]
    with reuse(family.model, 2, store, rows_of(pruner, found)):
        answers(family.model, inputs, pruner, 0.5)
    layers = family.model.get_decoder().layers
    assert all("forward" not in layer.__dict__ and not layer._forward_pre_hooks for layer in layers)
    assert torch.equal(answers(family.model, inputs, NoPruner(), 1.0)[1], before)


def test_questions_about_a_frame_share_its_states(make_family):
    family = make_family("internvl")
    (ids, token_map), *_ = prompts(family)[1]
    other = torch.cat([ids[:-2], torch.tensor([55, 56])])
    one, two = (CacheEntry.of("", "frame", name, each, token_map) for name, each in (("a", ids), ("b", other)))
    assert one.frame == two.frame and one.question != two.question
    worded = ids.clone()
    worded[0] += 1  # other words before the images change what the images' tokens have seen
    assert CacheEntry.of("", "frame", "a", worded, token_map).frame != one.frame
    assert CacheEntry.of("", "other", "a", ids, token_map).frame != one.frame
    assert CacheEntry.of("x", "frame", "a", ids, token_map) != one


def test_orders_are_worked_out_once_a_frame_and_cut_to_any_budget(make_family):
    family = make_family("llava_onevision")
    inputs, found = prompts(family)
    known = {}
    orders = SelectionCache(known, {f"sample {place}": PromptPrefix(f"frame {place % 2}", 1) for place in range(3)})
    counted = []

    class Counting(TFPS):
        def select(self, tokens_CND, k, ctx):
            counted.append((len(tokens_CND), k))
            return super().select(tokens_CND, k, ctx)

    pruner = Counting(layer=1)
    for keep in ({name: share for name, share in zip(CAMERAS, (0.1, 0.5, 1.0), strict=True)}, 0.3, 0.8):
        for names in ([f"sample {place}" for place in range(2)],):
            part = family.inputs(TEXTS[:2])
            with (
                torch.inference_mode(),
                prune_reusing(orders, family.model, pruner, keep, cameras=CAMERAS, sample_ids=names) as trace,
            ):
                family.model(**part)
            with torch.inference_mode(), prune(family.model, TFPS(layer=1), keep, cameras=CAMERAS) as plain:
                family.model(**part)
            for mine, theirs in zip(trace.picked, plain.picked, strict=True):
                assert all(torch.equal(mine[camera], theirs[camera]) for camera in CAMERAS)
    tokens = len(known) and next(iter(known.values())).picks_K.numel()
    assert counted == [(2 * len(CAMERAS), tokens)]
    question = SelectionCache({}, {f"sample {place}": PromptPrefix("frame", 1) for place in range(2)})
    with (
        torch.inference_mode(),
        prune_reusing(question, family.model, FastV(layer=1), 0.5, cameras=CAMERAS, sample_ids=names),
    ):
        family.model(**family.inputs(TEXTS[:2]))
    assert {key[1] for key in question.known} == {"sample 0", "sample 1"}, "FastV's order depends on the question"


@pytest.mark.parametrize("folder", [None, "kept"])
def test_a_store_keeps_what_came_first_within_its_limit(tmp_path, folder):
    where = folder and tmp_path / folder
    store = PrefixStore(1e-6, where)  # 1000 bytes
    small = {"x": torch.arange(100, dtype=torch.float32)}
    assert store.get("a") is None
    assert store.put("a", small) and store.put("b", small) and not store.put("c", small)
    assert store.put("a", small), "what is there already needs no room"
    assert torch.equal(store.get("a")["x"], small["x"]) and store.get("c") is None
    if where:
        again = PrefixStore(1e-6, where)
        assert torch.equal(again.get("b")["x"], small["x"]) and not again.put("c", small)
        (where / "b.safetensors").write_bytes(b"torn")
        with pytest.raises(InputError, match="damaged"):
            PrefixStore(1, where).get("b")


def test_what_cannot_be_reused_is_refused_in_one_line(make_family):
    with pytest.raises(InputError, match="VisPruner looks into the vision tower"):
        check_reuse(make_family("llava").model.config, VisPruner())
    with pytest.raises(InputError, match="qwen3_vl adds vision features"):
        check_reuse(make_family("qwen3_vl").model.config, TFPS())
    check_reuse(make_family("llava").model.config, TFPS())
    with pytest.raises(InputError, match=r"limit_gb=0"):
        PrefixStore(0)


def test_weights_are_told_apart(make_family):
    one, other = make_family("llava").model, make_family("internvl").model
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)
    small = torch.nn.Linear(3, 3)
    before = fingerprint(small)
    with torch.no_grad():
        small.bias[2] += 1
    assert fingerprint(small) != before


def test_a_prefix_stands_for_layers_that_a_method_does_not_look_at():
    counts = [untouched_layers(METHODS[name]()) for name in ("tfps", "before the LLM", "attention", "none")]
    assert counts == [1, 0, 1, 0]
    assert untouched_layers(SimpleNamespace(cuts=(3, 5), traits=Traits(needs_attention=True))) == 2
