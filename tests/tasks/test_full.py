"""`full=true`: the same questions with all tokens, in a folder inside the run's."""

import pytest
from helpers import runs

from prune2drive.tasks import loop

pytestmark = pytest.mark.slow  # whole runs


KEEP = "ratios.keep=0.1"


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    runs.run(folder, KEEP, "full=true", "pictures=1")
    return folder


def test_each_half_is_the_run_it_would_be_alone(both, tmp_path):
    runs.run(tmp_path / "pruned", KEEP)
    runs.run(tmp_path / "none", "pruner=none")
    assert runs.answers(both) == runs.answers(tmp_path / "pruned")
    assert runs.answers(both / "full") == runs.answers(tmp_path / "none") != runs.answers(both)
    metrics, alone = runs.read(both, "metrics.json"), runs.read(tmp_path / "none", "metrics.json")
    within = {key.removeprefix("full/"): value for key, value in metrics.items() if key.startswith("full/")}
    assert runs.without_costs(within) == runs.without_costs(alone)
    assert metrics["full/tokens/visual_kept"] > metrics["tokens/visual_kept"]
    assert runs.read(both / "full", "run.json")["choices"]["pruner"] == "none"
    assert len(list(both.glob("**/pictures/*.png"))) == 1


@pytest.mark.parametrize("after", [2, 6])
def test_interrupted_in_either_half(after, both, tmp_path, monkeypatch):
    answered = []
    answer = loop.Evaluation.answer

    def stopping(self, batch):
        answered.append(len(batch.samples))
        return 1 / 0 if len(answered) == after else answer(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Evaluation, "answer", stopping)
        with pytest.raises(ZeroDivisionError):
            runs.run(tmp_path, KEEP, "full=true", "batch_size=2")
    runs.resume(tmp_path, KEEP, "full=true", "batch_size=2")
    assert runs.answers(tmp_path) == runs.answers(both)
    assert runs.answers(tmp_path / "full") == runs.answers(both / "full")


def test_no_second_half_without_pruning(tmp_path):
    runs.run(tmp_path, "pruner=none", "full=true")
    assert not (tmp_path / "full").exists()


def test_a_multirun_has_none_unless_told():
    """Each job would answer the same questions with all tokens again."""
    assert runs.configuration("folder=nowhere").full is True
    assert runs.configuration("folder=nowhere", "hydra.mode=MULTIRUN").full is False
