import re

import pytest

from experiments import clips, kinds, minidrive, minidrive2
from experiments.cells import Cost, Score, Together, markdown, needed, write_block
from experiments.minidrive import TABLES, seeded
from experiments.runs import REPOSITORY, Runs
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.pruning import Adaptive, Uniform
from prune2drive.pruning.selection import budget
from prune2drive.tasks.config import compose

pytestmark = pytest.mark.slow  # whole runs

QUESTIONS = 40
IDS = MiniDrive("test", size=QUESTIONS, version=1).ids


class Found(Runs):
    """Runs in which a question's number and the options decide what is right; only what was asked for is there."""

    def __init__(self, there, ids=IDS):
        self.there, self.ids = set(there), ids

    def rows(self, options):
        assert options in self.there
        share = 4 if "pruner=none" in options else 3 if "pruner=tfps" in options else 2
        return [{"id": id, "answer": n % 4 < share, "reference": True} for n, id in enumerate(self.ids)]

    def metrics(self, options):
        assert options in self.there
        return {"time/select_ms": 0.25, "time/prefill_ms": 1, "tokens/layer_average": 1, "flops/ratio": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "asked", "name"),
    [
        (module.TABLES, asked, name)
        for module, asked in ((minidrive, {"version": 1}), (minidrive2, {"version": 2}), (clips, {"times": 2}))
        for name in module.TABLES
    ],
)
def test_table_needs_all_the_runs_that_it_shows(monkeypatch, made, asked, name):
    monkeypatch.setattr(kinds, "LEARNED", 20)
    table = made[name][0](QUESTIONS)
    found = Found(needed(table), MiniDrive("test", size=QUESTIONS, **asked).ids)
    lines = markdown(table, found).splitlines()
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == len(table) + 1


def test_score_of_a_difference_is_in_points_with_its_sign():
    ours, theirs = seeded(QUESTIONS, "tfps", 0.1), seeded(QUESTIONS, "random", 0.1)
    assert len(theirs) == 3 and len(set(theirs)) == 3
    text = Score(ours, theirs).text(Found({*ours, *theirs}))
    assert re.fullmatch(r"\+25\.0 \[\+\d\d\.\d, \+\d\d\.\d\]", text)
    assert Score(ours, only=frozenset(IDS[:3])).text(Found(ours)) == "100.0 [100.0, 100.0]"


def test_differences_that_hold_together_are_wider_than_one_alone():
    pairs = tuple((("pruner=none",), (f"pruner={name}",)) for name in ("tfps", "random", "uniform", "fastv"))
    found = Found(options for pair in pairs for options in pair)
    texts = [
        [float(x) for x in re.findall(r"[+-]\d+\.\d", Together(*pairs[1], family).text(found))]
        for family in (pairs, pairs[1:2])
    ]
    (value, low, high), (same, low_alone, high_alone) = texts
    assert value == same == 50.0 and low <= low_alone < value < high_alone <= high


def test_cost_divides_numbers_of_one_run():
    ours = seeded(QUESTIONS, "tfps")[0]
    share = Cost(ours, "time/select_ms", ".0%", "time/prefill_ms")
    found = Found(needed([[share]]))
    assert share.text(found) == "25%"
    assert Cost(ours, "tokens/layer_average", ".0f").text(found) == "1" and Cost(ours, "absent", "").text(found) == ""


def test_front_weighted_budget_is_as_large_as_the_uniform_one():
    cameras = MiniDrive("test", size=10).cameras
    ratios = Adaptive(str(REPOSITORY / minidrive.FRONT_WEIGHTED)).ratios(cameras)
    even = Uniform(0.1).ratios(cameras)
    assert sum(budget(ratio, 64) for ratio in ratios.values()) == sum(budget(ratio, 64) for ratio in even.values())


def test_layers_leaves_out_what_a_method_cannot_do():
    rows = {row[0]: row[1:] for row in TABLES["layers"][0](QUESTIONS)[1:]}
    empty = {method: [layer for layer, cell in enumerate(cells) if not cell] for method, cells in rows.items()}
    assert empty == {"`tfps`": [], "`random`": [], "`uniform`": [], "`fastv`": [0]}


def test_write_block_replaces_what_stands_between_the_markers(tmp_path):
    file = tmp_path / "page.md"
    file.write_text("a\n<!-- minidrive:kinds -->\nold\n<!-- /minidrive:kinds -->\nb <!-- minidrive:layers --> c")
    for _ in range(2):
        write_block(file, "minidrive:kinds", "| x |")
        expected = "a\n<!-- minidrive:kinds -->\n| x |\n<!-- /minidrive:kinds -->\nb <!-- minidrive:layers --> c"
        assert file.read_text() == expected


def test_main_writes_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(Runs, "make", lambda self, wanted, jobs: None)
    monkeypatch.setattr(Runs, "rows", Found(needed(TABLES["retrained"][0](QUESTIONS))).rows)
    files = [tmp_path / "one.md", tmp_path / "two.md"]
    for file in files:
        file.write_text("<!-- minidrive:retrained -->\n<!-- /minidrive:retrained -->\n")
    minidrive.main(["--tables", "retrained", "--questions", str(QUESTIONS), "--write", *map(str, files)])
    one, two = (file.read_text() for file in files)
    assert one == two and "| `tfps` | 75.0 [" in one and "; commit " in one


@pytest.mark.parametrize("keep", clips.KEEP)
def test_budgets_of_clips_are_divided_in_several_ways_and_of_one_size(keep):
    views = MiniDrive("test", size=1, times=clips.TIMES).cameras
    totals, current = set(), []
    for share in (1, *clips.SHARES.values()):
        options = clips.divided(QUESTIONS, keep, share)
        ratios = compose([*options, "model=minidrive2", "dataset=minidrive2"]).ratios.keep
        kept = {view: budget(ratios[view], 64) for view in views}
        totals.add(sum(kept.values()))
        current.append(kept["CAM_BACK@1"])
    assert totals == {budget(keep, 64) * len(views)}
    assert current[0] == budget(keep, 64) and current[1] > current[0] > current[2]


def test_words_alone_are_the_commonest_answer_of_training_to_the_same_question(monkeypatch):
    monkeypatch.setattr(kinds, "LEARNED", 20)
    dataset = MiniDrive("test", size=24, version=2)
    rows = [dataset.row(index) for index in range(24)]
    train = MiniDrive("train", size=12 * 20, version=2)
    seen = [train.row(index) for index in range(len(train))]
    right = {kind: [] for kind in dict.fromkeys(row.kind for row in rows)}
    for row in rows:
        of_kind = [each for each in seen if each.kind == row.kind]
        same = [each for each in of_kind if each.question == row.question] or of_kind
        answers = [each.reference for each in same]
        right[row.kind].append(max(dict.fromkeys(answers), key=answers.count) == row.reference)
    expected = {kind: f"{100 * sum(each) / len(each):.1f}" for kind, each in right.items()}
    assert kinds.words_alone(dataset) == expected
    assert len(set(expected.values())) > 1
