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
from prune2drive.files import read_json
from prune2drive.search.objective import Objective
from prune2drive.search.runner import PLAIN_RUN, ratio_overrides
from prune2drive.search.space import Space, make_space

COMMAND = (sys.executable, "-c", "from prune2drive.tasks.main import main; main()")


@dataclass(frozen=True)
class Settings:
    """What the trials of an experiment have in common.

    Args:
        space_name: `penalty` or `simplex`.
        keep: mean keep ratio of the simplex.
        symmetric: whether left and right cameras share a ratio.
        objective_weights: metric -> its weight.
        penalty: price of a camera kept whole.
        cameras: the data set's cameras.
        options: options of `run.py`.
        directory: working directory of the runs, from which the options' relative paths are read.
    """

    space_name: str
    keep: float
    symmetric: bool
    objective_weights: Mapping[str, float]
    penalty: float
    cameras: tuple[str, ...]
    options: tuple[str, ...]
    directory: str = "."

    def space(self) -> Space:
        """Returns the search space."""
        return make_space(self.space_name, self.cameras, self.keep, symmetric=self.symmetric)

    def objective(self) -> Objective:
        """Returns the objective."""
        return Objective(self.objective_weights, self.penalty)

    def to_json(self) -> str:
        """Returns the settings as the trial's command line takes them."""
        return json.dumps(asdict(self))


def evaluate(settings: Settings, values: Mapping[str, float], folder: Path) -> float:
    """Makes a run with the ratios that NNI's values stand for, and returns its objective.

    Args:
        settings: what the trials have in common.
        values: variable of the space -> value.
        folder: run folder.

    Raises:
        InputError: the run failed, or lacks a metric of the objective.
    """
    ratios = settings.space().ratios(values)
    where = f"hydra.run.dir={json.dumps(str(folder.resolve()))}"
    command = [*COMMAND, "logger=none", *PLAIN_RUN, *settings.options, *ratio_overrides(ratios), where]
    done = subprocess.run(command, cwd=settings.directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError((done.stderr.strip().splitlines() or ["the run failed without a message"])[-1])
    objective = settings.objective()
    return objective.value(objective.reward(read_json(folder / "metrics.json")), ratios)


def main(settings: str, folder: str) -> None:
    """Evaluates the parameters that NNI proposes and reports the objective to it."""
    import nni

    values = nni.get_next_parameter()
    run = Path(folder, nni.get_experiment_id(), str(nni.get_sequence_id()))
    nni.report_final_result(evaluate(Settings(**json.loads(settings)), values, run))


if __name__ == "__main__":
    main(*sys.argv[1:])
