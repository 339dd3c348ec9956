"""One trial of an NNI experiment: asks NNI for ratios, makes a run with them, reports what it is worth.

NNI starts it (see `nni_experiment`): `python -m prune2drive.search.nni_trial SETTINGS FOLDER`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.search.objective import Objective
from prune2drive.search.space import Space, make_space

SCRIPT = Path(__file__).resolve().parents[2] / "run.py"
TRIAL_DEFAULTS = ("logger=none", "full=false", "pictures=0", "warm_up=0", "trainer.enable_progress_bar=false")


@dataclass(frozen=True)
class Settings:
    """What the trials of an experiment share.

    Args:
        space_name: penalty or simplex.
        objective_weights: of metrics.
        options: of run.py.
    """

    space_name: str
    keep: float
    symmetric: bool
    objective_weights: Mapping[str, float]
    penalty: float
    cameras: tuple[str, ...]
    options: tuple[str, ...]

    def space(self) -> Space:
        return make_space(self.space_name, self.cameras, self.keep, symmetric=self.symmetric)

    def objective(self) -> Objective:
        return Objective(self.objective_weights, self.penalty)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def evaluate(settings: Settings, values: Mapping[str, float], folder: Path) -> float:
    """The objective of a run with the ratios that NNI's values stand for.

    Raises:
        InputError: the run failed, or has not the objective's metrics.
    """
    ratios = settings.space().ratios(values)
    keep = ",".join(f"{camera}:{ratio!r}" for camera, ratio in ratios.items())
    chosen = ["ratios=per_camera", "~ratios.keep", f"+ratios.keep={{{keep}}}"]
    where = f"hydra.run.dir={json.dumps(str(folder))}"
    command = [sys.executable, str(SCRIPT), *TRIAL_DEFAULTS, *settings.options, *chosen, where]
    done = subprocess.run(command, cwd=SCRIPT.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or ["the run failed without a message"])[-1])
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    objective = settings.objective()
    return objective.value(objective.reward(metrics), ratios)


def main(settings: str, folder: str) -> None:
    import nni

    values = nni.get_next_parameter()
    run = Path(folder, nni.get_experiment_id(), str(nni.get_sequence_id()))
    nni.report_final_result(evaluate(Settings(**json.loads(settings)), values, run))


if __name__ == "__main__":
    main(*sys.argv[1:])
