"""Prompts that begin alike are read together behind the cut, and answered as if each had been read by itself."""

import pytest
import torch
from helpers.families import CAMERAS, PAD
from helpers.shared_frames import FRAMES, NAMES, STEPS, TAILS, answers, prompts
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.models.prompts import Prompts
from prune2drive.pruning import PACT, TFPS, DivPrune, RandomPruner, Traits, prune
from prune2drive.pruning.context import Selection
from prune2drive.pruning.reuse.prune import prune_reusing
from prune2drive.pruning.reuse.selection_cache import SelectionCache
from prune2drive.pruning.reuse.shared_prefix import PromptPrefix, split_shared_prefix
from prune2drive.pruning.surgery.cut import Cut, pad_left


@pytest.fixture
def lengths(monkeypatch):
    """What enters the last layer of a model: rows and positions of each call."""

    def watch(model):
        seen = []
        mlp = model.get_decoder().layers[-1].mlp
        monkeypatch.setattr(
            mlp, "forward", lambda hidden, run=mlp.forward: seen.append(tuple(hidden.shape[:2])) or run(hidden)
        )
        return seen

    return watch


@pytest.mark.parametrize("name", ["llava_onevision", "llava", "internvl", "smolvlm", "qwen2_5_vl"])
@pytest.mark.parametrize("positions", ["keep", "renumber"])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_the_same_is_said(make_family, lengths, name, positions, layer):
    family = make_family(name)
    asked, beginnings = prompts(family)
    keep = dict(zip(CAMERAS, (0.3, 0.7, 0.1), strict=True))
    ids, logits, trace = answers(family.model, asked, TFPS(layer=layer), keep, positions=positions)
    seen = lengths(family.model)
    mine, my_logits, my_trace = answers(
        family.model, asked, TFPS(layer=layer), keep, SelectionCache({}, beginnings), positions=positions
    )
    assert torch.equal(mine, ids) and torch.allclose(my_logits, logits, atol=1e-4)
    assert all(torch.equal(one, other) for one, other in zip(my_trace.positions, trace.positions, strict=True))
    assert seen[0][0] == len(set(FRAMES)), "each frame is read once"
    rest = [group for group in seen if group[1] > 1][1:]
    assert rest == [(3, 2), (2, 4), (1, 11)] and seen[len(rest) + 1 :] == [(len(FRAMES), 1)] * (STEPS - 1)


def test_beams_share_their_prompt(make_family):
    family = make_family("llava_onevision")
    asked, beginnings = prompts(family)
    ids, *_ = answers(family.model, asked, TFPS(), 0.3, num_beams=3)
    mine, *_ = answers(family.model, asked, TFPS(), 0.3, SelectionCache({}, beginnings), num_beams=3)
    assert torch.equal(mine, ids)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_frames_of_several_lengths_are_padded(make_family, attention):
    family = make_family("internvl")
    family.model.set_attn_implementation(attention)
    frames = [0, 1, 0]
    plain = family.inputs([[11, 12, 13], [14], [11, 12, 13]], seeds=frames)
    with torch.inference_mode(), prune(family.model, TFPS(), 1.0, cameras=CAMERAS) as trace:
        family.model(**plain)
    asked = Prompts(plain, tuple(trace.token_maps)).followed_by(TAILS[:3], PAD)
    beginnings = {
        name: PromptPrefix(f"frame {frame}", token_map.length)
        for name, frame, token_map in zip(NAMES, frames, trace.token_maps, strict=False)
    }
    ids, logits, _ = answers(family.model, asked, TFPS(), 0.3)
    mine, my_logits, _ = answers(family.model, asked, TFPS(), 0.3, SelectionCache({}, beginnings))
    assert torch.equal(mine, ids) and torch.allclose(my_logits, logits, atol=1e-4)


class Weighing(TFPS):
    """One whose tokens stand for more and more of them."""

    traits = Traits(shares_picks_per_frame=True, proportional_attention=True)

    def select(self, tokens_CND, k, ctx):
        picks = super().select(tokens_CND, k, ctx)
        return Selection(picks, sizes_CK=torch.arange(1, k + 1).expand(len(picks), -1))


@pytest.mark.parametrize("pruner", [RandomPruner(), PACT(layer=1), Weighing(), DivPrune()])
def test_only_what_is_alike_is_shared(make_family, lengths, pruner):
    family = make_family("llava_onevision")
    asked, beginnings = prompts(family)
    ids, logits, _ = answers(family.model, asked, pruner, 0.3)
    seen = lengths(family.model)
    mine, my_logits, _ = answers(family.model, asked, pruner, 0.3, SelectionCache({}, beginnings))
    assert torch.equal(mine, ids) and torch.allclose(my_logits, logits, atol=1e-4)
    assert (seen[0][0] < len(FRAMES)) == isinstance(pruner, DivPrune)


def test_without_a_cache_nothing_is_shared(make_family):
    family = make_family("llava_onevision")
    asked, beginnings = prompts(family)
    found = []
    given = (family.model, TFPS(), 0.3)
    naming = {"token_map": asked.token_maps, "sample_ids": NAMES}
    for context in (prune(*given, **naming), prune_reusing(SelectionCache({}, beginnings), *given, **naming)):
        with torch.inference_mode(), context:
            found.append(family.model(**asked.inputs, use_cache=False).logits)
    assert torch.equal(*found)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sets(st.integers(0, 5)), st.integers(0, 6), st.integers(0, 4)),
        min_size=1,
        max_size=8,
    )
)
def test_blocks_hold_each_row_and_groups_all_of_them(rows):
    """Each row: its frame, which positions of the frame's 6 it keeps, its text behind them, and its padding."""
    starts = [start for *_, start in rows]
    kept = [
        torch.tensor([start + at for at in sorted(frame_kept)] + [start + 6 + at for at in range(text)])
        for _, frame_kept, text, start in rows
    ]
    alike = [PromptPrefix(str(frame), 6) for frame, *_ in rows]
    blocks, beginnings = split_shared_prefix(kept, starts, alike)
    kept_BK, real_BK = (torch.cat(parts, dim=1) for parts in zip(*map(pad_left, blocks), strict=True))
    cut = Cut.at(1, kept_BK, real_BK, torch.device("cpu"))
    for row, kept_K, real_K in zip(kept, cut.kept_BK, cut.real_BK, strict=True):
        assert kept_K[real_K].tolist() == row.tolist()
    distinct = len({(frame, tuple(sorted(frame_kept))) for frame, frame_kept, *_ in rows})
    if distinct == len(rows) or not all(text for *_, text, _ in rows):
        assert beginnings is None and len(blocks) == 1
        return
    assert beginnings is not None and len(beginnings.row_S) == distinct
    for row, (frame, frame_kept, *_) in enumerate(rows):
        lead = int(beginnings.row_S[beginnings.of_B[row]])
        assert rows[lead][:2] == (frame, frame_kept)
    assert sorted(row for group, _ in beginnings.groups for row in group.tolist()) == list(range(len(rows)))
    for group, last in beginnings.groups:
        texts = [rows[row][2] for row in group]
        assert max(texts) == last <= 2 * min(texts)
        assert not cut.real_BK[group, beginnings.width : cut.length - last].any()
