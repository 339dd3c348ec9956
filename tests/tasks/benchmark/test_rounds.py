import pytest
import torch

from prune2drive.tasks.benchmark.rounds import Turns, spread


def test_ways_take_turns_in_an_order_that_turns_round_and_warm_up_does_not_count():
    called = []

    def way(name):
        return lambda: called.append(name) or float(len(called))

    taken = Turns(torch.device("cpu"), rounds=3, warm_up=1).take({name: way(name) for name in "abc"})
    assert "".join(called) == "abccbaabccba"
    assert taken == {"a": [6, 7, 12], "b": [5, 8, 11], "c": [4, 9, 10]}


def test_a_ratio_is_of_one_round():
    """A neighbour that slows all of a round down does not change its ratio, as it would that of medians or means."""
    found = spread("ratio", [1.0, 20.0, 3.0], by=[2.0, 40.0, 4.0])
    assert found == {"ratio": 0.5, "ratio_quartiles": [0.5, 0.625]}


def test_median_and_quartiles():
    assert spread("ms", [4.0, 1.0, 2.0, 3.0, 9.0]) == {"ms": 3, "ms_quartiles": [2, 4]}
    assert spread("ms", [7.0]) == {"ms": 7, "ms_quartiles": [7, 7]}


def test_a_cpu_is_measured_by_the_time_of_this_process(monkeypatch):
    """Sleep is no work; several threads would count more than once."""
    turns = Turns(torch.device("cpu"), 1, 0)
    times = {"process_time": 1.0, "perf_counter": 2.0}
    for name, now in times.items():
        monkeypatch.setattr(f"prune2drive.tasks.benchmark.rounds.time.{name}", lambda now=now: now)
    for threads, expected in ((1, 1.0), (2, 2.0)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert turns.clock() == expected
    assert turns.seconds(lambda: None) == pytest.approx(0)
