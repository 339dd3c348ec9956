"""The page of a search, drawn from studies of made-up trials."""

import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import studies
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.report.charts import bars
from prune2drive.search import page as search
from prune2drive.search.page import write_search_report
from prune2drive.search.study import FEWEST, Study
from prune2drive.search.trials import Trial, best, best_so_far, pareto

pytestmark = pytest.mark.slow  # whole studies

VERDICT = {
    "sentence": "The searched ratios beat uniform ones.",
    "trials": 24,
    "winner": 7,
    "validated": [{"trial": 7, "objective": 0.625}, {"trial": 3, "objective": 0.5}],
    "tested": [
        {"name": "searched", "reward": 0.75, "ahead": None},
        {"name": "uniform", "reward": 0.5, "ahead": [0.25, 0.125, 0.375]},
    ],
}


class Page(HTMLParser):
    """The words of each section by heading, and what the charts' groups hold by id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: dict[str, str] = {}
        self.marks: Counter[str] = Counter()
        self.paths: dict[str, str] = {}
        self.tags, self.groups, self.inside, self.heading = [], [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        values = dict(attributes)
        self.tags.append((tag, values))
        if tag == "g":
            self.groups.append(values.get("id", ""))
        elif tag == "use":
            self.marks.update(self.groups)
        elif tag == "path":
            self.paths |= dict.fromkeys(self.groups, values["d"])

    def handle_endtag(self, tag):
        self.inside = ""
        if tag == "g":
            self.groups.pop()

    def handle_data(self, data):
        if self.inside == "h2":
            self.heading = data
        self.words[self.heading] = self.words.get(self.heading, "") + data

    def bars(self, chart):
        return [label for label in self.paths if label.startswith(f"{chart}-CAM")]

    def line(self, name):
        return [tuple(map(float, corner)) for corner in re.findall(r"([\d.]+) ([\d.]+)", self.paths[name])]


def searched(folder: Path, worth=studies.score, failing=(), **options):
    """A study, each trial with what its ratios are worth, some of them failed."""
    study = studies.study(folder, **options)
    while asked := study.ask(1):
        for trial in asked:
            if trial.number in failing:
                study.fail(trial, f"<script>out of memory</script> {trial.number % 2}")
            else:
                study.tell(trial, {"score": worth(trial.ratios)})
    study.close()
    return study


def page(folder: Path, study) -> Page:
    return Page(write_search_report(folder, study).read_text())


trials = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6) | st.none()), max_size=12)  # tenths: total, reward


def points(found) -> list[Trial]:
    return [
        Trial(number, {"CAM_FRONT": total / 10}, *((reward / 10, reward / 10) if reward is not None else ()))
        for number, (total, reward) in enumerate(found)
    ]


@given(trials)
def test_no_trial_beats_the_front(found):
    done = [point for point in points(found) if point.reward is not None]
    front = pareto(points(found))
    for point in done:
        as_good = [each for each in front if each.total <= point.total and each.reward >= point.reward]
        assert as_good, "the front has an answer to each trial"
        beaten = any(
            each.total <= point.total
            and each.reward >= point.reward
            and (each.total, each.reward) != (point.total, point.reward)
            for each in done
        )
        assert not (beaten and point in front)
    assert len({(point.total, point.reward) for point in front}) == len(front)


@given(trials)
def test_the_best_so_far(found):
    each = points(found)
    assert best_so_far(each) == [(known := best(each[: end + 1])) and known.objective for end in range(len(each))]


def test_bars_are_as_long_as_their_values():
    drawn = Page(bars("x", {"CAM_A": 0.5, "CAM_B": 0.125, "CAM_C": 0.0}, mark=0.3).svg())
    widths = []
    for label in drawn.bars("x"):
        across = [x for x, _ in drawn.line(label)]
        widths.append(max(across) - min(across))
    assert widths == pytest.approx([4 * widths[1], widths[1], 0]) and widths[1] > 50 and "x-mark" in drawn.paths


def test_a_chart_has_the_colours_of_the_page():
    drawn = bars("x", {"CAM_A": 0.5}, mark=0.3).svg()
    assert "var(--accent)" in drawn and "var(--ink)" in drawn and "var(--faint)" in drawn
    assert not re.search("#[0-9a-f]{6}", drawn), "a fixed colour would be lost on a dark page"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a search with a verdict, some trials of which failed, and its study."""
    folder = tmp_path_factory.mktemp("finished")
    study = searched(folder, trials=24, failing=(0, 5, 6))
    study.optuna_study.set_user_attr("verdict", VERDICT)
    write_search_report(folder, study)
    return folder, study


def test_a_search_with_failed_trials(finished):
    folder, study = finished
    shown = Page((folder / "report.html").read_text())
    assert (shown.marks["history-trials"], shown.marks["history-failed"]) == (21, 3)
    heights = [down for _, down in shown.line("history-best")]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) > 2, "the best so far only rises"
    front = pareto(study.trials)
    assert shown.marks["front-best"] == len(front) > 1
    assert shown.marks["front-others"] == 21 - len(front)
    assert len(shown.bars("winner")) == len(shown.bars("importance")) == 3
    assert len(re.findall(r"\d\.\d{4}", shown.words["All trials"])) == 24 * 4 + 21 * 2, "ratios, mean, R, objective"
    assert "0.2500" in shown.words["On the test split"] and "[+0.1250, +0.3750]" in shown.words["On the test split"]
    assert "0.6250" in shown.words["Finalists on the validation split"]
    assert "5" in shown.words["Failed trials"] and "<script>out of memory</script> 1" in shown.words["Failed trials"]
    assert VERDICT["sentence"] in shown.words[""] and "have ended since" not in shown.words[""]


def test_the_page_needs_nothing_else(finished):
    text = (finished[0] / "report.html").read_text()
    tags = Page(text).tags
    assert not [tag for tag, attributes in tags if tag in ("script", "link", "img", "iframe") or "src" in attributes]
    namespaces = r"http://www.w3.org/(1999/xlink|2000/svg)"
    assert not re.search(r"https?:|@import|url\((?!#)", re.sub(namespaces, "", text))


def test_trials_after_the_verdict(finished, tmp_path, no_charts):
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    assert "2 more trials have ended since" in page(tmp_path, searched(tmp_path, trials=26)).words[""]


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_the_camera_that_decides_is_the_most_important(tmp_path, sampler, no_charts):
    """It is what makes trials good: what makes them bad is CAM_FRONT. Under NSGA-II the reward is explained."""

    def worth(ratios):
        good = ratios["CAM_FRONT_LEFT"]
        return good if good > 0.7 else -ratios["CAM_FRONT"]

    study = searched(tmp_path, worth, trials=40, sampler=sampler, storage=str(tmp_path / "trials.log"))
    found = study.importance()
    assert next(iter(found)) == "CAM_FRONT_LEFT" and found["CAM_FRONT_LEFT"] > 0.5
    assert sum(found.values()) == pytest.approx(1) and set(found) == set(studies.CAMERAS)
    explained = "reward" if sampler == "nsga2" else "objective"
    assert f"a trial's {explained} is" in page(tmp_path, study).words["Importance"]


@pytest.mark.parametrize(
    ("worth", "trials"), [(studies.score, FEWEST - 1), (lambda ratios: 1.0 + 0.1 * sum(ratios.values()), FEWEST)]
)
def test_where_importance_cannot_be_told(tmp_path, worth, trials, no_charts):
    study = searched(tmp_path, worth, trials=trials, storage=str(tmp_path / "trials.log"))
    assert study.importance() == {}
    assert "Not enough data: at least 20 successful trials" in page(tmp_path, study).words["Importance"]


def test_a_fixed_total_has_no_front(tmp_path):
    shown = page(tmp_path, searched(tmp_path, space="simplex", keep=0.3))
    assert "same total, 0.3 of" in shown.words["Reward and kept share"]
    assert not shown.marks["front-best"] and shown.marks["history-trials"] == 12


def test_what_was_known_already_is_not_shown(tmp_path):
    study = searched(tmp_path, engine="nni", sampler="batch", trials=4, candidates=studies.CANDIDATES * 2)
    assert len(study.optuna_study.trials) > 2 == page(tmp_path, study).marks["history-trials"]


def test_nothing_but_failures(tmp_path):
    shown = page(tmp_path, searched(tmp_path, trials=2, failing=(0, 1)))
    assert "No trial has succeeded" in shown.words["History"] and "There is no verdict yet" in shown.words[""]
    assert "out of memory" in shown.words["Failed trials"]


@pytest.mark.parametrize("storage", [None, "journal"])
def test_again_from_the_study_alone(tmp_path, storage, capsys, request):
    if storage:
        request.getfixturevalue("no_charts")  # once is enough
    kept = {"storage": str(tmp_path / "trials.log")} if storage else {}
    study = searched(tmp_path, trials=4, **kept)
    before = write_search_report(tmp_path, study).read_text()
    (tmp_path / "report.html").unlink()
    notes = {"study": "s", "storage": kept.get("storage")}
    (tmp_path / "study.json").write_text(json.dumps(notes))
    search.main([str(tmp_path)])
    assert (tmp_path / "report.html").read_text() == before and "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("notes", "said"),
    [
        (None, "study.json: no such file; name the folder of a search"),
        ("[]", "study.json: expected an object with the field 'study'"),
        ('{"study": "s", "storage": null}', "no such file: .*study.db"),
        ('{"study": "s", "storage": "trials.log"}', "no such file: trials.log"),
        ('{"study": "s", "storage": "foo://x"}', "study s cannot be read from foo://x"),
    ],
)
def test_a_folder_without_a_study(tmp_path, monkeypatch, capsys, notes, said):
    monkeypatch.chdir(tmp_path)
    if notes is not None:
        (tmp_path / "study.json").write_text(notes)
    with pytest.raises(SystemExit) as stop:
        search.main([str(tmp_path)])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and errors.count("\n") == 1 and re.search(f"error: .*{said}", errors), errors
    assert {file.name for file in tmp_path.iterdir()} <= {"study.json"}, "nothing is made"


def test_a_storage_without_the_study(tmp_path):
    searched(tmp_path, trials=1)
    (tmp_path / "study.json").write_text('{"study": "another", "storage": null}')
    with pytest.raises(InputError, match="study another cannot be read"):
        Study.open(tmp_path)
