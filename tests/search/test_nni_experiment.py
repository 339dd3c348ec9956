import json
import subprocess
from types import SimpleNamespace

import nni
import nni.experiment
import pytest

from prune2drive.errors import InputError
from prune2drive.search import nni_experiment, nni_trial
from prune2drive.search.nni_trial import Settings, evaluate

CAMERAS = ("CAM_FRONT", "CAM_BACK")
SETTINGS = Settings("simplex", 0.2, False, {"score": 1.0}, 0.5, CAMERAS, ("model=tiny", "dataset.size=2"))


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Commands that would have been run; each leaves its metrics."""
    commands = []

    def run(command, **_):
        commands.append(command)
        folder = tmp_path / "E" / "4"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text('{"score": 0.75}')
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def test_a_trial_reports_what_its_run_is_worth(runs, monkeypatch, tmp_path):
    reported = []
    monkeypatch.setattr(nni, "get_next_parameter", lambda: {"CAM_FRONT": 0.9, "CAM_BACK": 0.3})
    monkeypatch.setattr(nni, "get_experiment_id", lambda: "E")
    monkeypatch.setattr(nni, "get_sequence_id", lambda: 4)
    monkeypatch.setattr(nni, "report_final_result", reported.append)
    nni_trial.main(SETTINGS.to_json(), str(tmp_path))
    assert reported == pytest.approx([0.75 - 0.5 * 0.4])
    (command,) = runs
    assert "model=tiny" in command and "ratios=per_camera" in command
    (keep,) = [option for option in command if option.startswith("+ratios.keep={CAM_FRONT:0.3")]
    assert "CAM_BACK:0.1" in keep and f'hydra.run.dir="{tmp_path}/E/4"' in command


def test_a_run_that_fails_says_why(monkeypatch, tmp_path):
    failed = SimpleNamespace(returncode=2, stderr="noise\nerror: no such model\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError, match="^error: no such model$"):
        evaluate(SETTINGS, {"CAM_FRONT": 0.9, "CAM_BACK": 0.3}, tmp_path)


def test_it_says_who_can_reach_the_server_before_it_starts(monkeypatch, capsys, tmp_path):
    class Experiment:
        id = "abc"

        def __init__(self, platform):
            self.config = SimpleNamespace(tuner=SimpleNamespace())

        def run(self, port):
            print(f"started {json.dumps(self.config.search_space)} {self.config.trial_concurrency}")
            if port == 1:
                raise RuntimeError("Port 1 is not idle.")

        def stop(self):
            print("stopped")

    monkeypatch.setattr(nni.experiment, "Experiment", Experiment)
    options = ["--cameras", *CAMERAS, "--folder", str(tmp_path), "--at-once", "2"]
    assert nni_experiment.main([*options, "--", "model=tiny"]) == 0
    said = capsys.readouterr().out
    assert said.index("listens on every network interface") < said.index('started {"CAM_FRONT"') < said.index("stopped")
    assert f"nnictl view abc --port 8080 --experiment_dir {tmp_path}" in said and "[0.02, 1.0]" in said
    assert nni_experiment.main([*options, "--port", "1"]) == 2
    assert "error: NNI did not start (Port 1 is not idle.); is port 1 free?" in capsys.readouterr().err


def test_bad_settings_before_the_server_starts(monkeypatch, capsys):
    monkeypatch.setattr(nni.experiment, "Experiment", lambda platform: pytest.fail("started"))
    assert nni_experiment.main(["--space", "simplex", "--keep", "0.001"]) == 2
    assert "error: search.keep=0.001" in capsys.readouterr().err
