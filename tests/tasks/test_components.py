"""What is refused before a model is loaded."""

import pytest
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.drivelmm_o1 import DriveLMMo1Score
from prune2drive.tasks.components import check_metric


class Questions:
    """Questions with these references."""

    def __init__(self, *references):
        self.references = references
        self.ids = [f"s_f_{number}" for number in range(len(references))]

    def __len__(self):
        return len(self.ids)

    def question(self, index):
        return "What?"

    def reference(self, index):
        return self.references[index]

    def __getitem__(self, index):
        raise AssertionError("an image was read")


def test_metrics_that_score_no_question_are_refused_before_the_model_is_loaded(tmp_path):
    before = runs.Lively.loaded
    with pytest.raises(InputError, match="^metrics: DriveLMMo1Score can score none of these 8 questions; choose .*$"):
        runs.run(tmp_path / "run", "metrics=drivelmm_o1")
    assert runs.Lively.loaded == before and not (tmp_path / "run").exists()


def test_metrics_that_score_one_question_are_accepted():
    check_metric(DriveLMMo1Score(), Questions(None, "A car", "B) A van", "A car"))  # the third has options


def test_metrics_of_questions_without_references_are_accepted():
    check_metric(DriveLMMo1Score(), Questions(None, None, None))


def test_metrics_of_drivelm_accept_questions_without_tags():
    check_metric(DriveLMScore(), Questions("A car"))
