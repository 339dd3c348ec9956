import json
import re

import pytest

from experiments import minidrive
from experiments.minidrive import TABLES, Cell, Cost, answers, markdown, needed, put
from experiments.runs import REPOSITORY, Runs
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.pruning import Adaptive, Uniform
from prune2drive.pruning.selection import budget

QUESTIONS = 40
IDS = MiniDrive("test", size=QUESTIONS).ids


class Found(Runs):
    """Runs in which a question's number and the options decide what is right; only what was asked for is there."""

    def __init__(self, there):
        self.there = set(there)

    def rows(self, options):
        assert options in self.there
        share = 4 if "pruner=none" in options else 3 if "pruner=tfps" in options else 2
        return [{"id": id, "answer": n % 4 < share, "reference": True} for n, id in enumerate(IDS)]

    def metrics(self, options):
        assert options in self.there
        return {"time/select_ms": 0.25, "time/prefill_ms": 1, "tokens/layer_average": 1, "flops/ratio": 1}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_reads_what_it_says_it_needs(name):
    table = TABLES[name](QUESTIONS)
    lines = markdown(table, Found(needed(table))).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == len(table) + 1


def test_differences_are_in_points_with_their_sign():
    ours, theirs = answers(QUESTIONS, "tfps", 0.1), answers(QUESTIONS, "random", 0.1)
    assert len(theirs) == 3 and len(set(theirs)) == 3
    text = Cell(ours, theirs).text(Found({*ours, *theirs}))
    assert re.fullmatch(r"\+25\.0 \[\+\d\d\.\d, \+\d\d\.\d\]", text)
    assert Cell(ours, only=frozenset(IDS[:3])).text(Found(ours)) == "100.0 [100.0, 100.0]"


def test_costs_are_a_runs_own():
    ours = answers(QUESTIONS, "tfps")[0]
    share = Cost(ours, "time/select_ms", ".0%", "time/prefill_ms")
    found = Found(needed([[share]]))
    assert share.text(found) == "25%"
    assert Cost(ours, "tokens/layer_average", ".0f").text(found) == "1" and Cost(ours, "absent", "").text(found) == ""


def test_the_front_weighted_budget_is_as_large_as_the_even_one():
    cameras = MiniDrive("test", size=10).cameras
    ratios = Adaptive(str(REPOSITORY / minidrive.FRONT_WEIGHTED)).ratios(cameras)
    even = Uniform(0.1).ratios(cameras)
    assert sum(budget(ratio, 64) for ratio in ratios.values()) == sum(budget(ratio, 64) for ratio in even.values())


def test_only_what_stands_between_the_markers_is_replaced():
    text = "a\n<!-- minidrive:kinds -->\nold\n<!-- /minidrive:kinds -->\nb <!-- minidrive:layers --> c"
    once = put(text, "minidrive:kinds", "| x |")
    assert once == "a\n<!-- minidrive:kinds -->\n| x |\n<!-- /minidrive:kinds -->\nb <!-- minidrive:layers --> c"
    assert put(once, "minidrive:kinds", "| x |") == once


def test_a_finished_run_is_not_made_again_and_an_interrupted_one_goes_on(tmp_path, monkeypatch):
    commands = []

    def run(self, options, environment):
        assert environment["OMP_NUM_THREADS"]
        commands.append((options, self.path(options).exists()))

    monkeypatch.setattr(Runs, "_run", run)
    runs = Runs(tmp_path, ["model=minidrive"])
    for options, status in ((("a=1",), "finished"), (("b=2",), "running")):
        runs.path(options).mkdir(parents=True)
        (runs.path(options) / "run.json").write_text(json.dumps({"status": status}))
    runs.make([("a=1",), ("b=2",), ("c=3",), ("c=3",)], jobs=1)
    assert commands == [(("b=2",), True), (("c=3",), False)]
