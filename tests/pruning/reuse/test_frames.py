"""Questions about a frame that are answered together are answered as each by itself."""

import functools

import pytest
import torch
from helpers import families, frames
from helpers.families import CAMERAS, PAD
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prune2drive.models import retiring
from prune2drive.pruning import TFPS, DivPrune, FastV, NoPruner, PyramidDrop, RandomPruner, VisionZip, VisPruner
from prune2drive.pruning.base import Traits
from prune2drive.pruning.context import Selection
from prune2drive.pruning.ratios import Uniform
from prune2drive.pruning.reuse.frame_memory import FrameMemory
from prune2drive.pruning.reuse.prefix_store import PrefixStore
from prune2drive.pruning.surgery.checks import validate

pytestmark = pytest.mark.slow  # every method on every family

CONFIGS = families.PRUNERS
KEEP = dict(zip(CAMERAS, (0.1, 0.5, 0.25), strict=True))


def method(path):
    pruner = instantiate(OmegaConf.create({"seed": 0, "pruner": OmegaConf.load(path)}).pruner)
    pruner.layer = min(pruner.layer, families.SIZES["num_hidden_layers"] - 1)
    return pruner


def families_and_methods():
    for path in CONFIGS:
        names = [name for name in families.tried_with(path.stem) if not families.is_refused(method(path), name)]
        yield from (pytest.param(name, path, id=f"{name}-{path.stem}") for name in names)


@pytest.mark.parametrize(("name", "path"), families_and_methods())
def test_a_frame_is_answered_as_its_questions_are(make_family, name, path):
    family = make_family(name)
    pruner = validate(method(path), Uniform(), family.model.config)
    expected = frames.by_question(family, pruner, KEEP)
    frames.assert_same(frames.by_frame(family, pruner, KEEP), expected)
    if pruner.traits.shares_picks_per_frame:
        frames.assert_same(frames.by_frame(family, pruner, KEEP, packed=True), expected)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "pruner", [TFPS(layer=1), TFPS(layer=0), FastV(layer=2), PyramidDrop().resolve(4), NoPruner()], ids=repr
)
@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 2},
        {"repetition_penalty": 1.5},
        {"min_new_tokens": 3, "eos_token_id": list(range(40, 90))},
    ],
    ids=str,
)
def test_options_of_generate_count_the_whole_prompt(make_family, attention, pruner, options):
    family = make_family("llava_onevision", attention)
    pair = (way(family, pruner, 0.25, options) for way in (frames.by_frame, frames.by_question))
    frames.assert_same(*pair, beams=options.get("num_beams", 1))


@pytest.mark.parametrize("positions", ["keep", "renumber"])
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("name", ["internvl", "qwen2_5_vl"])
def test_position_ids_go_on_behind_a_frame(make_family, name, layer, positions):
    pair = (
        way(make_family(name), TFPS(layer=layer), 0.2, positions=positions)
        for way in (frames.by_frame, frames.by_question)
    )
    frames.assert_same(*pair)


@pytest.mark.parametrize(
    ("frame_of", "ends"),
    [([0], [[51, 52]]), ([0, 1], [[51], [52, 53]]), ([0, 0, 0], [[51, 52], [51, 52], [51, 52, 53]])],
)
def test_frames_with_one_question_and_questions_that_are_alike(make_family, frame_of, ends):
    family = make_family("llava")
    for pruner in (TFPS(), FastV(layer=1)):
        asked = {"frame_of": frame_of, "ends": ends}
        frames.assert_same(
            frames.by_frame(family, pruner, 0.3, **asked), frames.by_question(family, pruner, 0.3, **asked)
        )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("are_level", [False, True])
def test_frames_that_keep_unequal_numbers_of_tokens(make_family, are_level, layer, packed):
    """Also where prompts are equally long, so that there is padding only behind the cut."""
    family = make_family("llava")
    more = 2 * (family.run + 2) + 2 if are_level else 0  # two images with their separators, and a shorter text
    asked = {"frame_of": [0, 1], "ends": [[51], [52] * (1 + more)], "cameras": [3, 1]}
    assert (len(set(frames.prompts(family, **asked).lengths)) == 1) == are_level
    expected = frames.by_question(family, TFPS(layer=layer), 0.25, **asked)
    assert len(set(expected.trace.kept_tokens)) == 2
    frames.assert_same(frames.by_frame(family, TFPS(layer=layer), 0.25, packed=packed, **asked), expected)


class Merging(TFPS):
    """Doubles the states that it keeps, and lets each stand for as many tokens as its rank."""

    @property
    def traits(self):
        return Traits(nested=False, merges_tokens=True, proportional_attention=True, shares_picks_per_frame=True)

    def select(self, tokens_CND, k, ctx):
        picks_CK = super().select(tokens_CND, k, ctx)
        rows_CKD = 2 * tokens_CND.gather(1, picks_CK[..., None].expand(-1, -1, tokens_CND.shape[-1]))
        return Selection(picks_CK, rows_CKD, torch.arange(1, k + 1).expand(len(tokens_CND), -1))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("packed", [False, True])
def test_merged_tokens_weigh_for_the_questions_too(make_family, attention, packed):
    family = make_family("llava_onevision", attention)
    expected = frames.by_question(family, Merging(layer=1), 0.5)
    frames.assert_same(frames.by_frame(family, Merging(layer=1), 0.5, packed=packed), expected)
    plain = frames.by_question(family, TFPS(layer=1), 0.5)
    assert not torch.allclose(plain.logits, expected.logits)


@pytest.mark.parametrize("name", ["llava_onevision", "qwen2_5_vl"])
@pytest.mark.parametrize("pruner", [TFPS(layer=1), TFPS(layer=0), FastV(layer=2), RandomPruner(layer=0)], ids=repr)
def test_rows_leave_as_they_end(make_family, monkeypatch, name, pruner):
    monkeypatch.setattr(retiring, "LEAST", 2)
    family = make_family(name)
    calls, generate = [], family.model.generate
    options = {"max_new_tokens": frames.RETIRING_STEPS}
    endless = frames.by_question(family, pruner, KEEP, options).tokens
    ends = sorted({*endless[:2, 2].tolist(), endless[2, 4].item()})
    expected = frames.by_question(family, pruner, KEEP, {**options, "eos_token_id": ends})
    monkeypatch.setattr(
        family.model, "generate", lambda **more: calls.append(len(more["input_ids"])) or generate(**more)
    )
    found = frames.by_frame(family, pruner, KEEP, ends_at=ends)
    if (expected.tokens[:, -1] != PAD).any():
        assert len(calls) >= 3 and calls[-1] <= len(frames.ENDS) // 2, "generate goes on with fewer rows"
    assert_same_answers(found.tokens, expected.tokens, ends)
    if pruner.traits.shares_picks_per_frame:
        calls.clear()
        found = frames.by_frame(family, pruner, KEEP, ends_at=ends, packed=True)
        assert_same_answers(found.tokens, expected.tokens, ends)
        assert len(calls) == 1, "the frames' beginnings alone are read by generate"


def assert_same_answers(found, expected, ends):
    for mine, theirs in zip(found.tolist(), expected.tolist(), strict=True):
        length = next((place for place, token in enumerate(theirs, start=1) if token in ends), len(theirs))
        assert mine[:length] == theirs[:length]


def test_padding_between_questions_is_not_computed(make_family, monkeypatch):
    family = make_family("llava_onevision")
    ends = [*frames.ENDS[:-1], [58, 59, 60, 61, 62]]  # not as many positions as there are questions
    asked = frames.prompts(family, ends=ends)
    read = sum(length - asked.shared[frame] - 1 for length, frame in zip(asked.lengths, asked.frame_of, strict=True))
    counts, linear = [], torch.nn.functional.linear

    def counted(states, *weights):
        counts.append(states[..., 0].numel())
        return linear(states, *weights)

    monkeypatch.setattr(torch.nn.functional, "linear", counted)
    found = frames.by_frame(family, TFPS(layer=1), 0.25, ends=ends)
    assert counts.count(read) == 7 * 4, "each linear layer of four decoder layers, once"
    assert behind_frames(asked) not in counts
    monkeypatch.undo()
    frames.assert_same(found, frames.by_question(family, TFPS(layer=1), 0.25, ends=ends))


def positions_computed(family, monkeypatch):
    """Counts the positions that each decoder layer computes."""
    counts = [0] * len(family.model.get_decoder().layers)
    for index, layer in enumerate(family.model.get_decoder().layers):

        def forward(hidden, run=layer.mlp.forward, index=index):
            counts[index] += hidden.shape[0] * hidden.shape[1]
            return run(hidden)

        monkeypatch.setattr(layer.mlp, "forward", forward)
    return counts


def behind_frames(asked):
    """Positions that a batch has behind what its prompts share with others of their frames, in a row for each frame.

    The last token of each prompt, which `generate` reads, is not among them; padding is.
    """
    rows = [0] * len(asked.shared)
    for length, frame in zip(asked.lengths, asked.frame_of, strict=True):
        rows[frame] += length - asked.shared[frame] - 1
    return len(rows) * max(rows)


def behind_prompts(asked):
    """The same positions, and those last tokens, in a row for each prompt."""
    rest = [length - asked.shared[frame] for length, frame in zip(asked.lengths, asked.frame_of, strict=True)]
    return len(rest) * max(rest)


@pytest.mark.parametrize("pruner", [TFPS(layer=2), FastV(layer=2), NoPruner()], ids=repr)
def test_images_are_encoded_and_shared_layers_run_once_a_frame(make_family, monkeypatch, pruner):
    family = make_family("llava_onevision")
    encoded, encode = [], family.model.base_model.get_image_features

    def counted(pixel_values, *args, **more):
        encoded.append(len(pixel_values))
        return encode(pixel_values, *args, **more)

    monkeypatch.setattr(family.model.base_model, "get_image_features", functools.wraps(encode)(counted))
    counts = positions_computed(family, monkeypatch)
    trace = frames.by_frame(family, pruner, 0.25).trace
    asked = frames.prompts(family)
    count, longest, questions = len(asked.frames.lengths), max(asked.shared), len(frames.ENDS)
    behind, steps = behind_frames(asked) + questions, questions * (frames.STEPS - 1)
    if not pruner.traits.shares_picks_per_frame:
        behind = behind_prompts(asked)
    dropped = trace.full_tokens[0] - trace.kept_tokens[0]
    assert encoded == [count * len(CAMERAS)]
    assert counts[:2] == [count * longest + behind + steps] * 2
    if pruner.traits.shares_picks_per_frame:
        assert counts[2:] == [count * (longest - dropped) + behind + steps] * 2
    else:
        assert counts[2:] == [questions * (max(asked.lengths) - dropped) + steps] * 2


def test_nothing_is_left_on_the_model(make_family):
    family = make_family("llava", "eager")
    before = frames.by_question(family, NoPruner(), 1.0)
    for pruner in (TFPS(layer=2), FastV(layer=2)):
        frames.by_frame(family, pruner, 0.5)
    decoder = family.model.get_decoder()
    modules = (family.model, family.model.base_model, decoder, *decoder.layers)
    assert not any("forward" in module.__dict__ or module._forward_pre_hooks for module in modules)
    assert decoder.config._attn_implementation == "eager"
    assert torch.equal(frames.by_question(family, NoPruner(), 1.0).logits, before.logits)


def remembered():
    """Every method on one family, every family with two; methods that read the vision tower where they can."""
    methods = [TFPS(layer=1), TFPS(layer=0), FastV(layer=2), PyramidDrop().resolve(4), DivPrune(), NoPruner()]
    yield from (("qwen3_vl", each) for each in methods)
    yield from ((name, methods[at]) for name in ("llava_onevision", "smolvlm", "qwen2_5_vl") for at in (0, 2))
    yield from ((name, each) for name in ("llava_onevision", "smolvlm") for each in (VisPruner(), VisionZip()))


@pytest.mark.parametrize(("name", "pruner"), remembered(), ids=str)
def test_frames_come_from_memory_at_any_ratio(make_family, name, pruner):
    family, memory = make_family(name), FrameMemory(PrefixStore(1), "model")
    frames.assert_same(frames.by_frame(family, pruner, 0.5, memory=memory), frames.by_question(family, pruner, 0.5))
    for keep in (KEEP, 1.0):
        recalled = frames.by_frame(family, pruner, keep, memory=memory, images=False)
        frames.assert_same(recalled, frames.by_question(family, pruner, keep))


def test_what_is_remembered_is_not_computed(make_family, monkeypatch):
    family, memory = make_family("llava_onevision"), FrameMemory(PrefixStore(1), "model")
    selected = []

    class Counting(TFPS):
        def select(self, tokens_CND, k, ctx):
            selected.append(len(tokens_CND))
            return super().select(tokens_CND, k, ctx)

    pruner = Counting(layer=2)
    frames.by_frame(family, pruner, 0.5, memory=memory)
    counts = positions_computed(family, monkeypatch)
    frames.by_frame(family, pruner, 0.25, memory=memory, images=False)
    steps = len(frames.ENDS) * frames.STEPS
    assert counts[:2] == [behind_frames(frames.prompts(family)) + steps] * 2
    assert selected == [len(CAMERAS) * 3], "the order in which tokens are picked is found once"
    other = Counting(layer=1)
    frames.assert_same(
        frames.by_frame(family, other, 0.25, memory=memory), frames.by_question(family, TFPS(layer=1), 0.25)
    )
