"""What metrics declare for tables."""

import pytest

from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.drivelmm_o1 import DriveLMMo1Score
from prune2drive.metrics.exact_match import ExactMatch
from prune2drive.metrics.nuscenes_qa import NuScenesQAScore


@pytest.mark.parametrize("metric", [DriveLMScore, DriveLMMo1Score, ExactMatch, NuScenesQAScore])
def test_columns_begin_with_the_score_and_all_are_shares(metric):
    columns = metric().columns
    assert next(iter(columns)) == "score" and columns["score"].in_comparison
    assert all(column.is_share and column.in_run for column in columns.values())


def test_columns_are_in_the_order_of_tables():
    assert list(ExactMatch().columns)[:4] == ["score", "exact_match", "final", "judge"]
