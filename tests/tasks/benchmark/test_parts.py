"""What each part measures: structure and arithmetic, never how long something takes."""

from collections import Counter

import pytest
import torch
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.pruning.selection import farthest_points
from prune2drive.tasks.benchmark import frames, phases, prefill, selection
from prune2drive.tasks.benchmark.rounds import Turns

pytestmark = pytest.mark.slow  # whole measurements

SHAPE = (
    *("task.shape.small.cameras=2", "task.shape.small.tokens=12", "task.shape.small.text=6"),
    *("task.shape.reference.decoder.hidden_size=32", "task.shape.reference.decoder.num_hidden_layers=4"),
)
TURNS = Turns(torch.device("cpu"), rounds=2, warm_up=1)


def configuration(folder, *options):
    more = ("task.frames.large.model._target_=helpers.runs.Lively", "generation.max_new_tokens=3")
    return runs.configuration(f"folder={folder}", "task=benchmark", runs.LIVELY, *SHAPE, *more, *options)


def rows(part, folder, *options):
    return list(part.prepare(configuration(folder, *options), TURNS)())


def test_a_row_for_every_cut_and_keep_ratio(tmp_path):
    found = rows(prefill, tmp_path, "task.prefill.keep=[0.25,0.5]", "task.prefill.attention=[sdpa,eager]")
    assert [(row["attention"], row["layers"], row["keep"]) for row in found] == [
        (attention, layer, keep) for attention in ("sdpa", "eager") for layer in "12" for keep in (0.25, 0.5)
    ]
    assert len({row["full_ms"] for row in found}) == 2, "one full prefill for each model"
    assert all(row["flops_ratio"] < 1 and 0 < row["select_share"] < 1 for row in found)


def test_flops_ratio(tmp_path):
    """METHODS' cost of a layer with 32 channels, 8 heads of 4, 4 key-value heads and a gated MLP of 1408."""

    def layer(tokens, attended):
        return 2 * tokens * (2 * 32 * 32 + 2 * 32 * 16 + attended * 32 + 3 * 32 * 1408)

    (row,) = rows(prefill, tmp_path, "task.prefill.keep=[0.25]", "task.prefill.layers=[1]")
    choosing = 2 * (2 * 12 * 12 * 32 + 12 * 3)
    for key, share in (("flops_ratio", 2), ("causal_flops_ratio", 1)):
        full, kept = layer(30, share * 30), layer(12, share * 12)
        assert row[key] == pytest.approx((full + 3 * kept + choosing) / (4 * full))


@pytest.mark.parametrize("pruner", ["staged", "pyramiddrop", "sparsevlm", "random"])
def test_methods_cut_where_they_do_by_themselves(pruner, tmp_path):
    found = rows(prefill, tmp_path, f"pruner={pruner}", "task.prefill.layers=[null]", "task.prefill.keep=[0.5]")
    assert len(found) == 1 and found[0]["layers"] and found[0]["time_ratio"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["task.prefill.shapes=[large]"], "task.prefill.shapes=large: choose from small, reference, drivemm"),
        (["task.prefill.attention=[flex]"], "task.prefill.attention=flex: choose from"),
        (["task.prefill.keep=[2]"], "2"),
        (["task.prefill.layers=[4]"], "pruner.layer=4: the model's decoder has layers 0 to 3"),
        (["task.shape.small.tokens=0"], "task.shape.small.tokens=0: use a whole number"),
        (["task.shape.small.dtype=int8"], "task.shape.small.dtype=int8: choose from float32"),
        (["task.shape.reference.decoder.hidden_size=33"], "not a multiple of the number of attention heads"),
        (["pruner=vispruner"], "pruner=vispruner reads the vision tower: choose another, or leave prefill out"),
        (["pruner=none"], "pruner=none keeps every token"),
        (["pruner=staged"], "layer"),
    ],
)
def test_what_does_not_fit_a_decoder_alone_is_refused(options, message, tmp_path):
    with pytest.raises(InputError) as error:
        prefill.prepare(configuration(tmp_path, *options), TURNS)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_selection_of_every_size(tmp_path):
    sizes = ("cameras=[1,3]", "tokens=[20]", "widths=[4,8]", "keep=[0.1,0.5]")
    found = rows(selection, tmp_path, *(f"task.selection.{size}" for size in sizes))
    assert [(row["cameras"], row["width"], row["kept"]) for row in found] == [
        (cameras, width, kept) for cameras in (1, 3) for width in (4, 8) for kept in (2, 10)
    ]
    assert all(row["same_picks"] for row in found)


def test_picks_that_differ_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "farthest_points", lambda tokens, k: farthest_points(tokens, k, start=1))
    (row,) = rows(selection, tmp_path, "task.selection.tokens=[20]", "task.selection.widths=[4]")
    assert not row["same_picks"]


def test_sizes_of_a_selection_are_checked(tmp_path):
    for option in ("task.selection.tokens=[0]", "task.selection.keep=[0]"):
        with pytest.raises(InputError, match="0"):
            selection.prepare(configuration(tmp_path, option), TURNS)


@pytest.mark.slow
def test_questions_of_frames_are_answered_alike_in_every_way(tmp_path):
    options = ("task.frames.configured.frames=1", "task.frames.one_question.frames=2", "task.frames.large.questions=6")
    small = ("task.frames.large.model.sizes={resolution: 28}", "task.frames.large.dataset.resolution=28")
    cfg = configuration(tmp_path, *options, *small, "task.frames.configured.questions=6", "batch_size=4")
    found = list(frames.prepare(cfg, Turns(torch.device("cpu"), 1, 0))())
    assert Counter((row["case"], row["questions"]) for row in found) == {
        ("configured", 6): 5,
        ("one_question", 2): 5,
        ("large", 6): 5,
    }
    for full, shared, alone, question, frame in zip(*[iter(found)] * 5, strict=True):
        assert not any(row["other_answers"] for row in (alone, question, frame))
        assert full["other_answers"], "lively answers depend on all tokens"
        assert (alone["batch_size"], frame["batch_size"]) == (1, 4)
        assert full["other_answers"] == shared["other_answers"], "nothing is pruned in either"
        assert alone["speedup"] == full["over_full"] == shared["over_full_frame"] == question["over_question"] == 1


@pytest.mark.slow
def test_speeds_are_of_the_clock(tmp_path, monkeypatch):
    """Ways are called back and forth: 1 to 5 seconds, then 6 to 10 in the other order."""
    ticks = iter(range(1, 100))
    monkeypatch.setattr(Turns, "seconds", lambda self, work: [work(), float(next(ticks))][1])
    cases = ("~task.frames.large", "~task.frames.one_question", "task.frames.configured.frames=1")
    cfg = configuration(tmp_path, *cases, "generation.max_new_tokens=1")
    found = {row["way"]: row for row in frames.prepare(cfg, Turns(torch.device("cpu"), 2, 0))()}
    assert found[frames.FRAME]["per_s_quartiles"] == pytest.approx([2 + 0.4 / 4, 2 + 0.4 * 3 / 4])
    assert found[frames.FRAME]["speedup"] == pytest.approx((3 / 5 + 8 / 6) / 2)
    assert found[frames.FRAME]["over_full_frame"] == pytest.approx((2 / 5 + 9 / 6) / 2)
    assert found[frames.QUESTION]["over_full"] == pytest.approx((1 / 4 + 10 / 7) / 2)


@pytest.mark.slow
def test_phases_of_questions_answered_alone(tmp_path):
    found = {row["phase"]: row for row in rows(phases, tmp_path, "latency.questions=2", "dataset.size=20")}
    assert list(found) == ["vision_ms", "select_ms", "prefill_ms", "decode_ms_per_token"]
    assert found["select_ms"]["full"] is None and found["vision_ms"]["questions"] == 2
    assert found["prefill_ms"]["ratio"] == found["prefill_ms"]["pruned"] / found["prefill_ms"]["full"]


@pytest.mark.parametrize(
    ("part", "option"),
    [
        (frames, "task.frames.configured.questions=0"),
        (frames, "task.frames.configured=null"),
        (frames, "task.frames.large.generation=3"),
        (frames, "generation.beams=2"),
        (phases, "latency.questions=0"),
        (phases, "pruner.layer=9"),
    ],
)
def test_questions_are_checked_before_a_model_is_loaded(part, option, tmp_path):
    loaded = runs.Lively.loaded
    option = f"+{option}" if "beams" in option else option
    with pytest.raises(InputError):
        part.prepare(configuration(tmp_path, option), TURNS)
    assert runs.Lively.loaded == loaded
