"""Searches keep ratios as the original does, in an NNI experiment: NNI's server starts the trials and has a web portal.

    python -m prune2drive.search.nni_experiment --trials 20 -- model=tiny dataset.split=search dataset.size=40

Options after `--` are those of run.py. NNI 3.0 cannot choose the address that its server listens on.
`run.py -m search=nni_tpe` is the same search without a server, followed by validation and test.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from prune2drive.cameras import CAMERAS
from prune2drive.errors import InputError
from prune2drive.search.nni_trial import Settings
from prune2drive.search.space import HIGH

TUNERS = {"tpe": "TPE", "evolution": "Evolution", "random": "Random", "grid": "GridSearch"}

EXPOSED = """NNI's server listens on every network interface of this machine, port {port}, without a password:
anyone who reaches it can run commands here. Use it behind a firewall."""


def start(settings: Settings, tuner: str, trials: int, at_once: int, port: int, folder: Path) -> str:
    """Runs an NNI experiment to its end and returns the experiment's id.

    Args:
        settings: the settings of the trials.
        tuner: a key of `TUNERS`.
        trials: number of trials.
        at_once: number of trials that run at the same time.
        port: port of the web portal.
        folder: folder of NNI's files and the trials' run folders.

    Raises:
        InputError: a setting is wrong, or NNI is missing or does not start.
    """
    space = settings.space()
    settings.objective()
    try:
        from nni.experiment import Experiment
    except ImportError as error:
        raise InputError(f"NNI cannot be imported ({error}); search with -m search=tpe") from error
    code = folder.resolve() / "code"  # NNI copies the folder that it starts trials in
    code.mkdir(parents=True, exist_ok=True)
    experiment = Experiment("local")
    config = experiment.config
    config.experiment_name = "prune2drive ratios"
    config.experiment_working_directory = str(folder.resolve())
    config.trial_code_directory = str(code)
    command = [sys.executable, "-m", "prune2drive.search.nni_trial", settings.to_json(), str(folder.resolve() / "runs")]
    config.trial_command = shlex.join(command)
    config.search_space = {name: {"_type": "uniform", "_value": [space.low, HIGH]} for name in space.variables}
    config.tuner.name = TUNERS[tuner]
    config.tuner.class_args = {"optimize_mode": "maximize"}
    config.max_trial_number, config.trial_concurrency = trials, at_once
    try:
        experiment.run(port)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"NNI did not start ({str(error).strip().splitlines()[-1]}); is port {port} free?") from error
    finally:
        experiment.stop()
    return str(experiment.id)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Search keep ratios in an NNI experiment with its web portal.")
    parser.add_argument("--tuner", choices=TUNERS, default="tpe")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=1, help="trials that run at the same time")
    parser.add_argument("--space", dest="space_name", default="penalty", help="penalty (the paper's) or simplex")
    parser.add_argument("--keep", type=float, default=0.1, help="mean ratio, for --space simplex")
    parser.add_argument("--symmetric", action="store_true", help="left and right cameras share a ratio")
    parser.add_argument(
        "--objective",
        dest="objective_weights",
        type=json.loads,
        default={"score": 1.0},
        help="weights of metrics, as JSON",
    )
    parser.add_argument("--penalty", type=float, default=0.03, help="price of a camera kept whole")
    parser.add_argument("--cameras", nargs="+", default=list(CAMERAS), help="cameras of the dataset")
    parser.add_argument("--port", type=int, default=8080, help="port of the web portal")
    parser.add_argument("--folder", type=Path, default=Path("outputs/nni"))
    parser.add_argument("options", nargs="*", help="options of run.py, after --")
    asked = vars(parser.parse_args(arguments))
    start_with = {name: asked.pop(name) for name in ("tuner", "trials", "at_once", "port", "folder")}
    settings = Settings(**asked, directory=str(Path.cwd()))
    print(EXPOSED.format(**start_with), flush=True)
    try:
        found = start(settings, **start_with)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("view it again: nnictl view {} --port {port} --experiment_dir {folder}".format(found, **start_with))
    return 0


if __name__ == "__main__":
    sys.exit(main())
