"""What is refused before a model is loaded."""

from types import SimpleNamespace

import pytest
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.drivelmm_o1 import DriveLMMo1Score
from prune2drive.sample import Prediction
from prune2drive.tasks import coverage
from prune2drive.tasks.components import check_metric


class Questions:
    """Questions with these references, all with the same tags."""

    def __init__(self, *references, tags=()):
        self.references, self.tags = references, tags
        self.ids = [f"s_f_{number}" for number in range(len(references))]

    def __len__(self):
        return len(self.ids)

    def row(self, index):
        return Prediction(self.ids[index], "What?", reference=self.references[index], tags=self.tags)

    def __getitem__(self, index):
        raise AssertionError("an image was read")


def test_metrics_that_score_no_question_are_refused_before_the_model_is_loaded(tmp_path):
    before = runs.Lively.loaded
    with pytest.raises(InputError, match="^metrics: DriveLMMo1Score can score none of these 8 questions: they offer"):
        runs.run(tmp_path / "run", "metrics=drivelmm_o1")
    assert runs.Lively.loaded == before and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("metric", "questions"),
    [
        (DriveLMMo1Score(), Questions(None, "A car", "B) A van", "A car")),  # the third has options
        (DriveLMMo1Score(), Questions(None, None, None)),
        (DriveLMScore(), Questions("A car", tags=(1, 2))),
        (DriveLMScore(SimpleNamespace()), Questions("A car", tags=(1,))),
        (DriveLMScore(), Questions(None)),
    ],
)
def test_metrics_that_can_score_or_have_nothing_to_score_are_accepted(metric, questions):
    assert check_metric(metric, questions) is None


@pytest.mark.parametrize(("tags", "reason"), [((), "they have no tags, .*=minidrive"), ((1,), "they need a judge")])
def test_metrics_of_drivelm_need_tags_and_what_they_ask_for(tags, reason):
    with pytest.raises(InputError, match=f"^metrics: DriveLMScore can score none of these 2 questions: {reason}"):
        check_metric(DriveLMScore(), Questions("A car", "No.", tags=tags))


def test_objects_are_counted_whatever_could_be_scored(tmp_path):
    assert coverage.run(
        runs.configuration(f"folder={tmp_path}", "task=coverage", "metrics=drivelmm_o1", runs.LIVELY, *runs.SMALL)
    )
