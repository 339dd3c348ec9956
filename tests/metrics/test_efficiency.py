import weakref

import pytest
from transformers import LlamaConfig

from prune2drive.errors import InputError
from prune2drive.metrics.efficiency import Efficiency
from prune2drive.metrics.flops import decoder_flops
from prune2drive.sample import Prediction

CONFIG = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
)


def row(kept_front=2, kept_back=3, text=10, layer=1, name="id", **changes):
    counts = {"CAM_FRONT": kept_front, "CAM_BACK": kept_back}
    full = {"CAM_FRONT": 20, "CAM_BACK": 20}
    changes = {"stages": [(layer, kept_front + kept_back)], **changes}
    return Prediction(name, "?", text_tokens=text, full_counts=full, kept_counts=counts, **changes)


def compute(*rows, **options):
    return Efficiency(CONFIG).compute(iter(rows), **options)


def test_tokens_are_counted_by_camera_and_layer():
    table = compute(row(), row(kept_front=4, text=14))
    assert table["tokens/visual_full"] == 40
    assert table["tokens/visual_kept"] == 6
    assert table["tokens/CAM_FRONT/kept"] == 3
    assert table["tokens/CAM_BACK/kept"] == 3
    assert table["tokens/text"] == 12
    assert table["tokens/layer_average"] == (1 * 40 + 3 * 6) / 4
    assert table["tokens/CAM_FRONT/kept_n"] == 2
    assert table["tokens/CAM_FRONT/kept_stderr"] == pytest.approx(1)


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_flops_are_those_of_the_lengths_in_each_layer(layer):
    table = compute(row(layer=layer))
    assert table["flops/prefill_full"] == decoder_flops(CONFIG, [50] * 4)
    assert table["flops/prefill_pruned"] == decoder_flops(CONFIG, [50] * layer + [15] * (4 - layer))


def test_the_ratio_is_one_of_means():
    long, short = row(text=1000), row(text=1)
    apart = [compute(sample)["flops/ratio"] for sample in (long, short)]
    table = compute(long, short)
    assert table["flops/ratio"] == table["flops/prefill_pruned"] / table["flops/prefill_full"]
    assert table["flops/ratio"] != pytest.approx(sum(apart) / 2)
    assert min(apart) < table["flops/ratio"] < max(apart)


def test_an_unpruned_run_costs_everything():
    table = compute(row(20, 20, stages=[]))
    assert table["flops/ratio"] == 1
    assert table["tokens/layer_average"] == 40


def test_a_row_may_have_several_stages():
    table = compute(row(stages=[(1, 30), (3, 5)]))
    assert table["tokens/layer_average"] == (40 + 30 + 30 + 5) / 4
    assert table["flops/prefill_pruned"] == decoder_flops(CONFIG, [50, 40, 40, 15])


def test_parts_that_rows_measured_are_averaged():
    table = compute(row(flops={"vision": 100, "selection": 5}), row(flops={"vision": 300, "selection": 5}))
    assert table["flops/vision"] == 200
    assert table["flops/selection"] == 5
    assert "flops/vision" not in compute(row())


def test_samples_are_counted_by_the_seconds_spent_on_them():
    assert compute(row(seconds=0.5), row(seconds=1.5))["time/samples_per_s"] == 1


def test_untimed_rows_have_no_times():
    assert not [key for key in compute(row(new_tokens=1)) if key.startswith("time/")]


def test_memory_is_in_millions_of_bytes():
    table = compute(row(), peak_mb=7.5)
    a_position = 2 * 2 * 8 * 2  # keys and values, heads, head size, bytes
    assert table["memory/kv_cache_mb"] == pytest.approx(a_position * (50 + 3 * 15) / 1e6)
    assert Efficiency(CONFIG, dtype_bytes=4).compute([row()])["memory/kv_cache_mb"] == pytest.approx(
        2 * table["memory/kv_cache_mb"]
    )
    assert table["memory/peak_mb"] == 7.5
    assert "memory/peak_mb" not in compute(row())


def test_failed_rows_are_left_out():
    failed = Prediction("id", "?", error="no image")
    assert compute(failed, row(), failed) == compute(row())
    with pytest.raises(InputError, match="no sample was answered"):
        compute(failed)


@pytest.mark.parametrize("stages", [[], [(1, 30)]])
def test_dropped_tokens_need_a_stage_that_says_so(stages):
    with pytest.raises(InputError, match="stages"):
        compute(row(stages=stages))


def test_rows_are_let_go():
    alive = weakref.WeakSet()

    def rows():
        for _ in range(50):
            sample = Record()
            alive.add(sample)
            yield sample
            assert len(alive) <= 2

    assert Efficiency(CONFIG).compute(rows())["tokens/text_n"] == 50


class Record(Prediction):
    __hash__ = object.__hash__

    def __init__(self):
        self.__dict__ |= vars(row())
