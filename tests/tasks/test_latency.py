"""Questions that are answered alone, for the seconds of each phase."""

import math

import pytest
import torch
from helpers import runs

from prune2drive.models.adapter import Adapter
from prune2drive.tasks.components import Components
from prune2drive.tasks.latency import measure_latency, pooled

pytestmark = pytest.mark.slow  # whole runs

OPTIONS = {"device": torch.device("cpu"), "options": {}, "generation": {"max_new_tokens": 4, "do_sample": False}}


@pytest.fixture
def asked(monkeypatch):
    """The prompts that are answered from now on, each as its number of rows and of kept positions."""
    generate, seen = Adapter.generate, []

    def counted(self, prompts, *reading, **options):
        seen.append(len(prompts.lengths))
        return generate(self, prompts, *reading, **options)

    monkeypatch.setattr(Adapter, "generate", counted)
    return seen


def measured(*overrides, questions=3, warm_up=1):
    components = Components.build(runs.configuration(runs.LIVELY, *runs.BARE, *overrides))
    return measure_latency(components, questions, warm_up, **OPTIONS)


def test_questions_of_different_frames_alone_pruned_and_in_full(asked):
    table = measured("dataset.size=40", "ratios.keep=0.1")
    assert asked == [1] * 2 * (1 + 3)
    phases = {"time/vision_ms", "time/prefill_ms", "time/decode_ms_per_token"}
    keys = {*phases, *(f"full/{key}" for key in phases), "time/select_ms", "time/prefill_ratio"}
    assert set(table) == {f"{key}{end}" for key in keys for end in ("", "_n", "_stderr")}
    assert all(table[key] > 0 for key in keys)
    assert table["time/prefill_ms_n"] == table["full/time/prefill_ms_n"] == table["time/prefill_ratio_n"] == 3
    assert table["time/prefill_ratio"] == pytest.approx(
        table["time/prefill_ms"] / table["full/time/prefill_ms"], rel=1e-4
    )


def test_at_most_one_question_a_frame(asked):
    assert measured("dataset.size=20", questions=8, warm_up=0)["time/prefill_ms_n"] == 2
    assert len(asked) == 4


def test_without_pruning_there_is_nothing_to_compare(asked):
    table = measured("dataset.size=10", "pruner=none", warm_up=2)
    assert asked == [1] * (2 + 1)
    assert table and not [key for key in table if "full" in key or "ratio" in key]


def test_a_resumed_run_keeps_what_was_measured(tmp_path, asked):
    runs.run(tmp_path, "latency.questions=1")
    before = (tmp_path / "latency.json").read_bytes()
    rows = (tmp_path / "predictions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "predictions.jsonl").write_text("".join(rows[:5]))
    runs.resume(tmp_path, "latency.questions=1")
    assert (tmp_path / "latency.json").read_bytes() == before
    metrics = runs.read(tmp_path, "metrics.json")
    assert metrics["time/prefill_ms"] == runs.read(tmp_path, "latency.json")["time/prefill_ms"]


def test_shards_are_pooled_by_how_much_they_measured():
    one, two = (
        {"time/prefill_ms": value, "time/prefill_ms_n": n, "time/prefill_ms_stderr": error}
        for value, n, error in ((10.0, 1, 0.0), (20.0, 3, 2.0))
    )
    table = pooled([one, two])
    assert table == {"time/prefill_ms": 17.5, "time/prefill_ms_n": 4, "time/prefill_ms_stderr": math.sqrt(36) / 4}
    assert pooled([one]) == one
