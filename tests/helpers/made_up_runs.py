"""A launcher whose runs answer at once, by their ratios alone."""

import json
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus

from prune2drive.sample import Prediction

SPLITS = (
    "search.splits.search.frames=null",
    "search.splits.val.sample=null",
    "search.splits.test.sample=null",
    *(f"+search.splits.{name}.size=8" for name in ("search", "val", "test")),
)
SMALL = ("search.trials=6", "search.finalists=2", "search.random_draws=2", *SPLITS)
FEW = ("model=tiny", "logger=none", "search.study=s", *SMALL)
QUESTIONS = 40


class Launcher:
    """Answers by the ratios alone; right more often the more the front camera keeps."""

    def __init__(self):
        self.launched: list[dict] = []
        self.outcome = lambda ratios: {"score": ratios["CAM_FRONT"]}

    def launch(self, job_overrides, initial_job_idx):
        return [self._run(job) for job in job_overrides]

    def _run(self, overrides):
        parser = OverridesParser.create()
        values = {each.key_or_group: each.value() for each in parser.parse_overrides(list(overrides))}
        parsed = {name: getattr(value, "text", value) for name, value in values.items()}
        ratios = parsed["ratios.keep"] = {str(camera): ratio for camera, ratio in parsed["ratios.keep"].items()}
        parsed["folder"] = str(parsed["hydra.sweep.subdir"])
        self.launched.append(parsed)
        folder = Path(parsed["hydra.sweep.dir"], parsed["folder"])
        returned = JobReturn(status=JobStatus.COMPLETED)
        try:
            metrics = self.outcome(ratios)
        except RuntimeError as error:
            returned.status, returned._return_value = JobStatus.FAILED, error
            return returned
        folder.mkdir(parents=True)
        right = round(metrics.get("score", 0) * QUESTIONS)
        rows = [
            Prediction(str(n), "?", "Yes." if n < right else "No.", "Yes.", scene="s", frame=str(n)).to_row()
            for n in range(QUESTIONS)
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "run.json").write_text(json.dumps({"status": "finished"}))
        return returned
