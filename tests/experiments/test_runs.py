import json

from experiments.runs import Runs


def test_make_skips_finished_runs_and_resumes_interrupted_ones(tmp_path, monkeypatch):
    commands = []

    def run(self, options, environment):
        assert environment["OMP_NUM_THREADS"]
        commands.append((options, self.path(options).exists()))

    monkeypatch.setattr(Runs, "_run", run)
    runs = Runs(tmp_path, ["model=minidrive"])
    for options, status in ((("a=1",), "finished"), (("b=2",), "running")):
        runs.path(options).mkdir(parents=True)
        (runs.path(options) / "run.json").write_text(json.dumps({"status": status}))
    runs.make([("a=1",), ("b=2",), ("c=3",), ("c=3",)], jobs=1)
    assert commands == [(("b=2",), True), (("c=3",), False)]
