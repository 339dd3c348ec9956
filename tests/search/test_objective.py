import pytest

from prune2drive.errors import InputError
from prune2drive.search.objective import Objective


def test_the_originals_objective():
    objective = Objective({"language": 0.5, "accuracy": 0.5}, penalty=0.03)
    reward = objective.reward({"language": 0.4, "accuracy": 0.8, "score": 9})
    assert reward == pytest.approx(0.6)
    assert objective.value(reward, {"CAM_FRONT": 0.5, "CAM_BACK": 0.1}) == pytest.approx(0.6 - 0.03 * 0.6)


@pytest.mark.parametrize("metrics", [{"accuracy": 1.0}, {"score": float("nan"), "accuracy": 1.0}])
def test_a_missing_metric_is_named(metrics):
    with pytest.raises(InputError, match="no score; it has .*accuracy"):
        Objective({"score": 1.0}).reward(metrics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {}}, "search.objective is empty"),
        ({"weights": {"score": "much"}}, "search.objective.score=much"),
        ({"weights": {"score": 1}, "penalty": float("inf")}, "search.penalty=inf"),
    ],
)
def test_a_wrong_objective(options, message):
    with pytest.raises(InputError, match=message):
        Objective(**options)
