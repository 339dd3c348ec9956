"""`python run.py task=benchmark`: from options to benchmark.json, a table and a page."""

import re

import pytest
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.tasks.benchmark import task

FAST = (
    *("task=benchmark", "task.rounds=2", "task.warm_up=0", "task.parts=[selection,prefill]"),
    *("task.shape.small.tokens=12", "task.shape.reference.decoder.num_hidden_layers=3", "task.prefill.layers=[1]"),
    *("task.selection.tokens=[12]", "task.selection.widths=[4]"),
)


def test_json_table_and_page(tmp_path, capsys):
    ratio = task.run(runs.configuration(f"folder={tmp_path}", *FAST))
    found = runs.read(tmp_path, "benchmark.json")
    assert ratio == found["selection"][0]["ratio"], "of the part named first"
    assert [row["keep"] for row in found["prefill"]] == [0.1, 0.25]
    assert found["rounds"] == 2 and found["on"] == "cpu" and len(found["load_average"]) == 3
    for row in found["prefill"]:
        low, high = row["time_ratio_quartiles"]
        assert low <= row["time_ratio"] <= high

    shown = capsys.readouterr().out
    assert "same picks" in shown and "quartiles" not in shown and "report.html" in shown
    page = (tmp_path / "report.html").read_text()
    assert re.findall("<h2>(.*)</h2>", page) == [task.PARTS[name].heading for name in ("selection", "prefill")]
    assert page.count("<svg") == 2 and "time ratio quartiles" in page
    ids = set(re.findall('id="([^"]*)"', page))
    assert {
        "prefill-shape small, attention sdpa, layers 1, keep 0.1",
        "prefill-range-1",
        "prefill-expected",
        "selection-mark",
    } <= ids
    assert not re.search(r'(src|href)="(?!#)', page), "self-contained"


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("task.parts=[speed]", "task.parts=speed: choose from prefill, selection, frames, end_to_end"),
        ("task.parts=prefill", "task: parts=prefill: give a list"),
        ("task.parts=[]", r"task: parts=\[\]: give a list"),
        ("task.prefill.keep=0.1", "task: keep=0.1: give a list"),
        ("task.rounds=0", "task.rounds=0: use a whole number"),
        ("task.threads=0", "task.threads=0"),
        ("task.selection.keep=[3]", "3"),
        ("task.shape.reference.decoder.num_key_value_heads=3", "8 heads of 512 channels with 3 key-value heads"),
        ("batch_size=auto", "^batch_size=auto: a benchmark measures one size; give a number"),
        ("shard=1/2", "^shard=1/2: task=benchmark has no use for it; leave shard out$"),
        ("resume=run", "^resume=run: task=benchmark has no use for it"),
    ],
)
def test_bad_options_are_said_before_anything_is_measured(option, message, tmp_path, capsys):
    with pytest.raises(InputError, match=message) as error:
        task.run(runs.configuration(f"folder={tmp_path}", *FAST, option))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir()) and not capsys.readouterr().out
