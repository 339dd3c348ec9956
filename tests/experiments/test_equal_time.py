import numpy as np
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import equal_time
from benchmarks.equal_time import affordable, measure
from experiments import minidrive2
from prune2drive.pruning import TFPS, PyramidDrop
from prune2drive.tasks.benchmark.rounds import Turns


@given(st.floats(0.1, 2), st.floats(0.01, 0.2), st.integers(1, 64))
def test_a_method_may_keep_its_own_tokens_in_its_own_time(start, slope, tokens):
    times = {k: start + slope * k for k in (1, 4, 16, 64)}
    assert affordable(times, times.get(tokens, start + slope * tokens) + 1e-9) == tokens
    assert affordable(times, start) is None


def test_line_smooths_what_one_budget_took_too_long_for():
    times = {k: 1 + k + (0.4 if k == 4 else 0) for k in range(1, 9)}
    assert affordable(times, 5.5) == 4


def test_every_budget_of_every_method_is_measured():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = measure({"tfps": TFPS(), "pyramiddrop": PyramidDrop()}, 1, Turns(torch.device("cpu"), 1, 0))
    finally:
        torch.set_num_threads(threads)
    assert found.keys() == {"tfps", "pyramiddrop"}
    for of_method in found.values():
        assert tuple(of_method) == equal_time.BUDGETS and all(np.isfinite([*of_method.values()]))


def test_command_writes_what_the_table_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        equal_time, "measure", lambda methods, *_: {name: {k: 0.5 + k / 100 for k in (1, 64)} for name in methods}
    )
    file = tmp_path / "budgets.yaml"
    equal_time.main(["--tokens", "9", "--write", str(file)])
    assert "the time of tfps with 9 tokens of a camera: 0.59 of the un-pruned one" in capsys.readouterr().out
    record = yaml.safe_load(file.read_text())
    assert record["tokens"] == dict.fromkeys(minidrive2.METHODS, 9) and record["of"] == 64
    monkeypatch.setattr(minidrive2, "EQUAL_TIME", file)
    _, first, second, *rest = minidrive2.times(48)
    assert first[:2] == ["`tfps`", "9"] and first[3] == "" and len(rest) == len(minidrive2.METHODS) - 2
    assert all("ratios.keep=0.140625" in options for cell in second[2:] for options in cell.needs)
