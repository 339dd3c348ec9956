"""The page of a search, drawn from studies of made-up trials."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers import studies
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.search import page as search
from prune2drive.search.charts import TICKS, bars, ticks
from prune2drive.search.page import write_search_report
from prune2drive.search.study import FEWEST, Study
from prune2drive.search.trials import Trial, best, best_so_far, pareto

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
    """Sections by heading, each with its tags and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sections: dict[str, list] = {}
        self.words: dict[str, str] = {}
        self.tags, self.inside, self.heading = [], "", ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        self.tags.append((tag, dict(attributes)))
        self.sections.setdefault(self.heading, []).append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "h3":
            self.heading = data
        self.words[self.heading] = self.words.get(self.heading, "") + data

    def marks(self, heading, kind):
        return [tag for tag, attributes in self.sections[heading] if attributes.get("class") == kind]

    def line(self, heading):
        (corners,) = (attributes["points"] for tag, attributes in self.sections[heading] if tag == "polyline")
        return [tuple(map(float, corner.split(","))) for corner in corners.split()]


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


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_round_and_even(low, span):
    found = ticks(low, low + span)
    slack = 1e-9 * (abs(low) + span)
    assert 2 <= len(found) <= TICKS and low - slack <= found[0] and found[-1] <= low + span + slack
    apart = {float(f"{b - a:.3g}") for a, b in zip(found, found[1:], strict=False)}
    assert len(apart) == 1 and f"{apart.pop():e}"[:3] in ("1.0", "2.0", "5.0")


def test_bars_are_as_long_as_their_values():
    drawn = bars({"a": 0.5, "b": 0.125, "c": 0.0}, "x")
    a, b, c = (float(width) for width in re.findall(r'class="bar".* width="([\d.]+)"', drawn))
    assert a == pytest.approx(4 * b, abs=0.5) and b > 50 and c == 0


def test_a_search_with_failed_trials(tmp_path):
    study = searched(tmp_path, trials=24, failing=(0, 5, 6))
    study.optuna_study.set_user_attr("verdict", VERDICT)
    shown = page(tmp_path, study)
    assert (len(shown.marks("History", "dot")), len(shown.marks("History", "cross"))) == (21, 3)
    heights = [down for _, down in shown.line("History")]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) > 2, "the best so far only rises"
    front = pareto(study.trials)
    assert len(shown.marks("Reward and kept share", "strong")) == len(front) > 1
    assert len(shown.marks("Reward and kept share", "dot")) == 21 - len(front)
    assert len(shown.marks("The winner: trial 7", "bar")) == len(shown.marks("Importance", "bar")) == 3
    assert "0.2500" in shown.words["On the test split"] and "[+0.1250, +0.3750]" in shown.words["On the test split"]
    assert "0.6250" in shown.words["Finalists on the validation split"]
    assert "5" in shown.words["Failed trials"] and "<script>out of memory</script> 1" in shown.words["Failed trials"]
    assert VERDICT["sentence"] in shown.words[""] and "before the last" not in shown.words[""]


def test_the_page_needs_nothing_else(tmp_path):
    study = searched(tmp_path, trials=24, failing=(1,))
    text = write_search_report(tmp_path, study).read_text()
    tags = Page(text).tags
    assert not [tag for tag, attributes in tags if tag in ("script", "link", "img", "iframe") or "src" in attributes]
    assert not re.search(r"https?:|@import|url\(", text)


def test_trials_after_the_verdict(tmp_path):
    searched(tmp_path, trials=24).optuna_study.set_user_attr("verdict", VERDICT)
    assert "before the last 6 trials" in page(tmp_path, searched(tmp_path, trials=30)).words[""]


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_the_camera_that_decides_is_the_most_important(tmp_path, sampler):
    """It is what makes trials good: what makes them bad is CAM_FRONT. Under NSGA-II the reward is explained."""

    def worth(ratios):
        good = ratios["CAM_FRONT_LEFT"]
        return good if good > 0.7 else -ratios["CAM_FRONT"]

    study = searched(tmp_path, worth, trials=60, sampler=sampler)
    found = study.importance()
    assert next(iter(found)) == "CAM_FRONT_LEFT" and found["CAM_FRONT_LEFT"] > 0.5
    assert sum(found.values()) == pytest.approx(1) and set(found) == set(studies.CAMERAS)
    explained = "reward" if sampler == "nsga2" else "objective"
    assert f"a trial's {explained} is" in page(tmp_path, study).words["Importance"]


@pytest.mark.parametrize(
    ("worth", "trials"), [(studies.score, FEWEST - 1), (lambda ratios: 1.0 + 0.1 * sum(ratios.values()), FEWEST)]
)
def test_where_importance_cannot_be_told(tmp_path, worth, trials):
    study = searched(tmp_path, worth, trials=trials)
    assert study.importance() == {}
    assert "Not to be told" in page(tmp_path, study).words["Importance"]


def test_a_fixed_total_has_no_front(tmp_path):
    shown = page(tmp_path, searched(tmp_path, space="simplex", keep=0.3))
    assert "same total, 0.3 of" in shown.words["Reward and kept share"]
    assert not shown.marks("Reward and kept share", "strong") and len(shown.marks("History", "dot")) == 12


def test_what_was_known_already_is_not_shown(tmp_path):
    study = searched(tmp_path, engine="nni", sampler="batch", trials=4, candidates=studies.CANDIDATES * 2)
    assert len(study.optuna_study.trials) > 2 == len(page(tmp_path, study).marks("History", "dot"))


def test_nothing_but_failures(tmp_path):
    shown = page(tmp_path, searched(tmp_path, trials=2, failing=(0, 1)))
    assert "No trial has succeeded" in shown.words["History"] and "There is no verdict yet" in shown.words[""]
    assert "out of memory" in shown.words["Failed trials"]


@pytest.mark.parametrize("storage", [None, "journal"])
def test_again_from_the_study_alone(tmp_path, storage, capsys):
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
