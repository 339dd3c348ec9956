"""The hooks under several cuts, merged rows and weighed slots, against decoding worked out by hand."""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
import torch
from helpers import families
from helpers.families import CAMERAS, TOKENS
from helpers.reference import Stage, staged
from transformers import DynamicCache

from prune2drive.errors import InputError
from prune2drive.pruning import Pruner, Selection, Traits, prune
from prune2drive.pruning.stages import Stages

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25], [31]]
COUNTS = [3, 2, 3]  # cameras in each prompt
STEPS = 3
NAMES = ("llama", "qwen2_5_vl", "qwen3_vl", "llava_onevision")
KINDS = {"drops": (False, ()), "merges": (True, ()), "weighs": (True, (0, 1, 2)), "weighs first": (True, (0,))}


@dataclass
class Dice(Stages):
    """Draws what it keeps and, if asked, what the slots hold from now on; remembers it by sample and camera.

    Args:
        swaps: whether slots hold other rows.
        weighed: cuts at which slots are told to stand for several tokens.
    """

    swaps: bool = False
    weighed: tuple[int, ...] = ()
    said: dict = field(default_factory=lambda: defaultdict(list))

    @property
    def traits(self):
        return Traits(nested=False, merges_tokens=self.swaps, proportional_attention=bool(self.weighed))

    def select(self, tokens_CND, k, ctx):
        picks, rows, sizes = [], [], []
        for pool in ctx.pools:
            said = self.said[pool.sample_id, pool.cameras]
            generator = pool.generator(len(said))
            picks.append(torch.randperm(tokens_CND.shape[1], generator=generator)[:k])
            rows.append(torch.randn(k, tokens_CND.shape[2], generator=generator))
            sizes.append(torch.randint(1, 9, (k,), generator=generator))
            stage = len(said)
            said.append((picks[-1], rows[-1] if self.swaps else None, sizes[-1] if stage in self.weighed else None))
        weighed = stage in self.weighed
        return Selection(
            torch.stack(picks),
            torch.stack(rows) if self.swaps else None,
            torch.stack(sizes) if weighed else None,
        )


def by_hand(dice, trace, row, sample):
    """What the method said of one sample, as stages in prompt positions."""
    token_map = trace.token_maps[row]
    scopes = [token_map.cameras] if dice.scope == "global" else [(camera,) for camera in token_map.cameras]
    alive = {cameras: torch.cat([token_map.positions(camera) for camera in cameras]).tolist() for cameras in scopes}
    text = (token_map.view_P < 0).nonzero().flatten().tolist()
    stages = []
    for index, layer in enumerate(dice.cuts):
        stage = Stage(layer, torch.empty(0))
        for cameras in scopes:
            picks, rows, sizes = dice.said[sample, cameras][index]
            at = [alive[cameras][pick] for pick in picks.tolist()]
            stage.rows |= {} if rows is None else dict(zip(at, rows, strict=True))
            stage.sizes |= {} if sizes is None else dict(zip(at, sizes.tolist(), strict=True))
            alive[cameras] = sorted(at)
        stage.kept_K = torch.tensor(sorted([*text, *sum(alive.values(), [])]))
        stages.append(stage)
    return stages


def answer(model, inputs, **options):
    out = model.generate(
        **inputs, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
    )
    return out.sequences[:, -STEPS:], torch.stack(out.logits, dim=1)


def assert_close(found, expected):
    """Within 1e-5 of the largest logit."""
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


def batch(family):
    return family.inputs(TEXTS, counts=COUNTS), family.naming(TEXTS, COUNTS)


def one(family, row):
    texts, counts = TEXTS[row : row + 1], COUNTS[row : row + 1]
    return family.inputs(texts, [row], counts), family.naming(texts, counts)


SAMPLES = ["a", "b", "c"]


def ragged_cases():
    """All cuts and kinds on the decoder with mRoPE and deepstack; the hardest of them on others, and with eager."""
    for kind, layers, positions in itertools.product(KINDS, ([2], [1, 3], [0, 2], [1, 2, 3]), ("keep", "renumber")):
        yield "qwen3_vl", "sdpa", positions, layers, kind
        alternates = (positions == "keep") == (layers == [0, 2])  # each cut and kind in one numbering
        if alternates and layers in ([0, 2], [1, 2, 3]) and kind in ("merges", "weighs"):
            yield from ((name, "sdpa", positions, layers, kind) for name in NAMES if name != "qwen3_vl")
        if alternates and layers in ([0, 2], [1, 3]) and kind in ("drops", "weighs", "weighs first"):
            yield from ((name, "eager", positions, layers, kind) for name in ("llama", "qwen3_vl"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "attention", "positions", "layers", "kind"), ragged_cases(), ids=str)
def test_a_ragged_batch_equals_every_prompt_computed_by_hand(make_family, attention, name, positions, layers, kind):
    family = make_family(name, attention)
    inputs, naming = batch(family)
    dice = Dice(
        layers=layers, swaps=KINDS[kind][0], weighed=KINDS[kind][1], scope="global" if 0 in layers else "per_camera"
    )
    with prune(family.model, dice, 0.12, positions=positions, sample_ids=SAMPLES, **naming) as trace:
        tokens, logits = answer(family.model, inputs)
    for row, sample in enumerate(SAMPLES):
        alone, _ = one(family, row)
        stages = by_hand(dice, trace, row, sample)
        expected = staged(family.model, alone, stages, positions, STEPS)
        assert_close(logits[row], expected[1])
        assert torch.equal(tokens[row], expected[0])
        assert torch.equal(trace.positions[row], stages[-1].kept_K)
        text = int((trace.token_maps[row].view_P < 0).sum())
        assert trace.stages[row] == [(stage.layer, len(stage.kept_K) - text) for stage in stages]
        kept = {camera: trace.token_maps[row].positions(camera)[at] for camera, at in trace.kept[row].items()}
        assert set(torch.cat(list(kept.values())).tolist()) <= set(stages[-1].kept_K.tolist())
    assert trace.kept_tokens == [2 * count for count in COUNTS]


@pytest.mark.parametrize("positions", ["keep", "renumber"])
@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_equals_its_prompts_one_by_one(make_family, name, positions):
    family = make_family(name)
    inputs, naming = batch(family)
    method = {"layers": [1, 2, 3], "swaps": True, "weighed": (1,)}
    with prune(family.model, Dice(**method), 0.3, positions=positions, sample_ids=SAMPLES, **naming) as trace:
        tokens, logits = answer(family.model, inputs)
    for row, sample in enumerate(SAMPLES):
        alone, naming = one(family, row)
        with prune(family.model, Dice(**method), 0.3, positions=positions, sample_ids=[sample], **naming) as single:
            tokens_alone, logits_alone = answer(family.model, alone)
        assert torch.equal(tokens_alone[0], tokens[row])
        assert_close(logits_alone[0], logits[row])
        assert torch.equal(single.positions[0], trace.positions[row])
        for camera, picks in single.picked[0].items():
            assert torch.equal(picks, trace.picked[row][camera])


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_other_budgets_are_cut_to_their_own_lengths(make_family, attention, name):
    """Cameras of a prompt shrink by different numbers at each cut."""
    family = make_family(name, attention)
    inputs, naming = family.inputs(TEXTS), family.naming(TEXTS)
    keep = dict(zip(CAMERAS, (0.9, 0.05, 0.3), strict=True))
    dice = Dice(layers=[1, 3], swaps=True, weighed=(0, 1))
    with prune(family.model, dice, keep, sample_ids=SAMPLES, **{"cameras": CAMERAS, **naming}) as trace:
        _, logits = answer(family.model, inputs)
    for row, sample in enumerate(SAMPLES):
        alone = family.inputs(TEXTS[row : row + 1], [row])
        expected = staged(family.model, alone, by_hand(dice, trace, row, sample), "keep", STEPS)
        assert_close(logits[row], expected[1])


@pytest.mark.parametrize("positions", ["keep", "renumber"])
def test_decoding_by_hand_in_chunks_equals_generate(make_family, positions):
    """Several tokens at once behind the pruned prompt, whose layers hold three lengths and weigh slots."""
    family = make_family("qwen2_5_vl")
    alone, naming = one(family, 0)
    dice = Dice(layers=[1, 3], swaps=True, weighed=(0, 1))
    with prune(family.model, dice, 0.12, positions=positions, **naming):
        tokens, expected = answer(family.model, alone)
        dice.said.clear()
        cache = DynamicCache()
        assert_close(family.model(**alone, past_key_values=cache).logits[0, -1], expected[0, 0])
        behind = family.model(input_ids=tokens[:, : STEPS - 1], past_key_values=cache).logits[0]
    assert_close(behind, expected[0, 1:])
    lengths = [cache.get_seq_length(layer) - STEPS + 1 for layer in range(4)]
    prompt = alone["input_ids"].shape[1]
    text = prompt - 3 * TOKENS
    middle = round(TOKENS * (2 / TOKENS) ** 0.5)
    assert lengths == [prompt, text + 3 * middle, text + 3 * middle, text + 3 * 2]


@pytest.mark.parametrize("attention", ["flash_attention_2", "flash_attention_3", "flex_attention"])
def test_attention_that_cannot_weigh_slots_is_refused(attention):
    family = families.make("llava")
    family.model.get_decoder().config._attn_implementation = attention
    with pytest.raises(InputError, match=f"Dice weighs .*{attention}.* sdpa or eager"):
        with prune(family.model, Dice(layers=[1], weighed=(0,)), 0.1):
            pass
    with prune(family.model, Dice(layers=[1]), 0.1):
        pass


@dataclass
class Silent(Pruner):
    """Gives rows and sizes without saying that it does."""

    sizes_too: bool = False

    def select(self, tokens_CND, k, ctx):
        picks = torch.arange(k).expand(len(tokens_CND), k)
        return Selection(picks, sizes_CK=picks + 1) if self.sizes_too else Selection(picks, tokens_CND[:, :k])


@pytest.mark.parametrize("sizes_too", [False, True])
def test_merging_without_saying_so_is_refused(make_family, sizes_too):
    family = make_family("llava")
    with (
        prune(family.model, Silent(sizes_too=sizes_too), 0.1),
        pytest.raises(InputError, match="Silent returns .*traits do not say"),
    ):
        family.model(**family.inputs(TEXTS[:1]))
