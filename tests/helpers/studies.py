"""Searches over a cheap objective."""

import json
import time
from pathlib import Path

from prune2drive.search.active_study import ActiveStudy
from prune2drive.search.objective import Objective
from prune2drive.search.samplers import SamplerChoice
from prune2drive.search.space import make_space
from prune2drive.search.storage import Location, default_storage

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT")
BEST = {"CAM_FRONT": 0.6, "CAM_FRONT_LEFT": 0.2, "CAM_FRONT_RIGHT": 0.1}
CANDIDATES = (BEST, dict.fromkeys(CAMERAS, 0.3))
HOLD = "hold"  # a file


def study(
    folder, sampler="random", engine="optuna", trials=12, space="penalty", identity=None, **options
) -> ActiveStudy:
    location = Location("s", options.pop("storage", default_storage(Path(folder))))
    choice = SamplerChoice(engine, sampler, options.pop("levels", 3), options.pop("candidates", CANDIDATES))
    objective = Objective({"score": 1.0}, options.pop("penalty", 0.1))
    searched = make_space(space, CAMERAS, keep=options.pop("keep", 0.3))
    return ActiveStudy(location, choice, searched, objective, identity or {"model": "tiny"}, trials, **options)


def score(ratios) -> float:
    return 1 - sum((ratios[camera] - BEST[camera]) ** 2 for camera in CAMERAS)


def search(study: ActiveStudy, at_once: int = 1) -> list[dict[str, float]]:
    """Evaluates until the study has enough; returns what it evaluated."""
    evaluated = []
    while asked := study.ask(at_once):
        for trial in asked:
            study.tell(trial, {"score": score(trial.ratios)})
            evaluated.append(trial.ratios)
    study.close()
    return evaluated


def in_a_process(results: Path, trials: int, seconds: float = 0.01, **options) -> None:
    """Each evaluation takes a moment and writes its result, as a run does, before it is told; none ends beside HOLD."""

    def metrics_of(number: int):
        file = results / f"{number}.json"
        return json.loads(file.read_text()) if file.exists() else None

    shared = study(results, trials=trials, metrics_of=metrics_of, **options)
    while asked := shared.ask(2):
        for trial in asked:
            time.sleep(seconds)
            while (results / HOLD).exists():
                time.sleep(0.01)
            partial = results / f"{trial.number}.partial"
            partial.write_text(json.dumps({"score": score(trial.ratios)}))
            partial.rename(results / f"{trial.number}.json")
        for trial in asked:
            shared.tell(trial, metrics_of(trial.number))
    shared.close()
