import json
from itertools import count

import pytest
from omegaconf import OmegaConf

from experiments import tables
from experiments.claims import Claim, configuration, names
from experiments.comparison import Row, rows_here, runs_there
from experiments.found_runs import FoundRuns, pruning_key, search_key, setting
from prune2drive.errors import InputError
from prune2drive.metrics.intervals import Interval
from prune2drive.sample import Prediction
from prune2drive.tasks.components import check_settings
from prune2drive.tasks.main import _run

pytestmark = pytest.mark.slow  # whole pages

NAMES = names()
FRAMES = 40
EMBEDDED = ("model=minidrive2", "dataset=minidrive2")


class Folders:
    """Makes run folders of which only the answers are made up.

    Args:
        root: where they are.
    """

    def __init__(self, root):
        self.root, self.numbers = root, count()

    def add(self, *options, right=0.5, metrics=(), folder=None, config=(), **record):
        """Writes the run that these options would make; `right` of its answers are the reference's."""
        cfg = configuration(options)
        number = next(self.numbers)
        folder = folder or self.root / str(number)
        folder.mkdir(parents=True)
        rows = [
            Prediction(str(n), "?", "Yes." if n < right * FRAMES else "No.", "Yes.", frame=str(n)).to_row()
            for n in range(FRAMES)
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "metrics.json").write_text(json.dumps({"tokens/visual_kept": 36, "score": right, **dict(metrics)}))
        known = {
            "status": "finished",
            "finished": f"2026-01-01T00:00:{number:02}",
            "is_noise": False,
            "git": {"commit": "abcdef0123", "dirty": False},
            "choices": OmegaConf.to_container(cfg.names, resolve=True),
            "config": OmegaConf.to_container(cfg, resolve=True) | dict(config),
            "counts": {"done": FRAMES},
        }
        (folder / "run.json").write_text(json.dumps(known | record))
        return folder


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "runs")


@pytest.mark.parametrize("name", NAMES)
def test_claim_says_what_it_is_and_its_numbers_are_of_its_jobs(name):
    claim = Claim.read(name)
    assert claim.says and claim.source and len(claim.needs) >= 2
    assert {claim.rival(job) for job in claim.jobs} <= set(claim.jobs) >= set(claim.published)
    assert claim.headline in claim.columns
    assert {len(values) for values in claim.published.values()} <= {len(claim.columns)}
    assert claim.published or "none" in claim.source
    assert claim.counterpart in NAMES or "model=minidrive2" in claim.counterpart


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_the_sweep_composes_and_no_two_are_the_same(name):
    claim = Claim.read(name)
    keys = set()
    jobs = [job for job in claim.jobs if len(set(job) - set(claim.jobs[-1])) <= 1]
    for job in jobs:
        cfg = configuration(claim.there(job))
        check_settings(cfg)
        assert "claim" not in cfg and setting(cfg)[0] != "minidrive2"
        plain = OmegaConf.to_container(cfg, resolve=True)
        keys.add(search_key(plain["search"], setting(cfg)) if claim.is_search else pruning_key(plain))
    assert len(keys) == len(jobs)
    if not isinstance(claim.counterpart, str):
        here = configuration(claim.here(claim.jobs[-1]))
        check_settings(here)
        assert setting(here) == ("minidrive2", "minidrive2") and not OmegaConf.missing_keys(here)


def test_a_run_is_not_given_the_claim():
    cfg = OmegaConf.create({"task": {"_target_": "builtins.len"}, "claim": {"says": "much"}})
    assert _run(cfg) == 1 and "claim" in cfg


def test_unknown_claims_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"^table3: no such experiment; claims are .*table1, table2$"):
        Claim.read("table3")
    with pytest.raises(InputError, match="baselines: no claim of the paper"):
        Claim.read("baselines")


def test_published_leads_are_those_of_the_table():
    claim = Claim.read("table1")
    assert claim.published_lead(("pruner=fastv", "ratios.keep=0.0985")) == 3.3
    assert claim.published_lead(("pruner=none", "ratios.keep=0.247")) == -0.8
    assert claim.published_lead(("pruner=tfps", "ratios.keep=0.247")) is None
    assert Claim.read("start").published_lead(("pruner.start=0",)) is None


@pytest.mark.parametrize(
    ("low", "high", "published", "verdict"),
    [
        (1, 2, 0.5, "agrees"),
        (-2, -1, -3, "agrees"),
        (-1, 1, 0, "agrees"),
        (-1, 1, 0.5, "undecided"),
        (-2, -1, 0.5, "contradicts"),
        (1, 2, 0, "contradicts"),
        (1, 2, None, ""),
    ],
)
def test_verdict(low, high, published, verdict):
    assert Row((), None, Interval((low + high) / 2, low, high, 9), published).verdict == verdict
    assert Row((), None, None, published).verdict == ""


def test_runs_are_known_by_what_decides_their_answers(folders):
    claim = Claim.read("nearest")
    farthest, nearest = (claim.here(job) for job in claim.jobs)
    old = folders.add(*farthest)
    plain = ("pruner=tfps", "ratios.keep=0.0985", "dataset.size=1200", *EMBEDDED)  # positions are T-FPS' own: kept
    new = folders.add(*plain, "batch_size=7", "prefix_cache=memory", "logger=none")
    folders.add(*nearest, status="running")
    folders.add(*nearest, "dataset.size=10")
    folders.add(*nearest, "dataset.difficulty=dense")
    folders.add(*nearest, "positions=renumber")
    (folders.root / "damaged").mkdir()
    (folders.root / "damaged" / "run.json").write_text("{")
    found = FoundRuns([folders.root])
    rows = rows_here(claim, found)
    assert [row.run and row.run.folder for row in rows] == [new, None] and old != new
    assert rows[1].lead is None


def test_runs_that_keep_all_tokens_are_the_same_at_every_ratio(folders):
    whole = folders.add("pruner=none", "dataset.size=1200", "ratios.keep=0.5", *EMBEDDED)
    rows = {row.job: row.run for row in rows_here(Claim.read("table1"), FoundRuns([folders.root])) if row.run}
    assert {run.folder for run in rows.values()} == {whole}
    assert set(rows) == {("pruner=none", "ratios.keep=0.247"), ("pruner=none", "ratios.keep=0.0985")}


def test_a_search_stands_for_its_winner_on_the_test_split(folders):
    claim = Claim.read("search")
    for sampler, right in (("tpe", 1.0), ("grid", 0.5)):
        options = claim.here((f"search={sampler}",))
        cfg = configuration(options)
        sweep = folders.root / sampler
        folders.add(*options, right=right, folder=sweep / "test/searched_0-12345678")
        folders.add(*options, right=0, folder=sweep / "test/uniform_0-12345678")
        search = {**OmegaConf.to_container(cfg.search, resolve=True), "objective": {"score": 1.0}}
        provenance = search | {"model": "minidrive2", "dataset": "minidrive2", "trials": 60}
        OmegaConf.save({"ratios": {}, "provenance": provenance}, sweep / "winner.yaml")
    tpe, grid, evolution = rows_here(claim, FoundRuns([folders.root]))
    assert tpe.score.value == 100 and grid.lead.value == 50 and grid.verdict == "agrees"
    assert (tpe.run.trials, evolution.run) == (60, None)


def test_what_cannot_be_compared_says_why(folders):
    claim = Claim.read("nearest")
    job = claim.jobs[0]
    there, whole = claim.there(job), {"tokens/visual_kept": 25, "rubric/overall": 0.7, "rubric/overall_stderr": 0.01}
    folders.add(*claim.here(job))
    good = folders.add(*there, metrics=whole)
    folders.add(*there, "model=llava_onevision", metrics=whole)
    folders.add(*there, "model=tiny", metrics=whole, is_noise=True)
    reasons = {run.setting[0]: (run.folder, reason) for _, run, reason in runs_there(claim, FoundRuns([folders.root]))}
    assert reasons.pop("drivelmm_o1") == (good, "")
    assert reasons["llava_onevision"][1].startswith("another model or data set, llava_onevision on drivelmm_o1")
    assert reasons["tiny"][1].startswith("random weights") and len(reasons) == 2
    folders.add(*there, metrics={"tokens/visual_kept": 25})
    ((_, _, reason),) = [
        each for each in runs_there(claim, FoundRuns([folders.root])) if each[1].setting[0] == "drivelmm_o1"
    ]
    assert reason.startswith("no rubric/overall")


def test_another_budget_cannot_be_compared(folders):
    claim = Claim.read("table2")
    job = ("pruner=tfps", "ratios.keep=0.0985")
    folders.add(*claim.there(job), metrics={"tokens/visual_kept": 150, "rubric/overall": 0.7})
    ((found, _, reason),) = runs_there(claim, FoundRuns([folders.root]))
    assert found == job and reason == "another budget, 150 visual tokens instead of 25"


def test_command_says_contradictions_first_and_what_is_missing(folders, tmp_path, capsys):
    claim = Claim.read("nearest")
    folders.add(*claim.here(claim.jobs[0]), right=0.25)
    folders.add(*claim.here(claim.jobs[1]), right=0.75)
    metrics = {"tokens/visual_kept": 25, "rubric/overall": 0.7, "rubric/overall_stderr": 0.01}
    folders.add(*claim.there(claim.jobs[0]), metrics=metrics)
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- claims:summary -->\nstale\n<!-- /claims:summary -->\n<!-- claims:search -->\n<!-- /claims:search -->\n"
    )
    tables.main(["nearest", "search", "--runs", str(folders.root), "--write", str(page)])
    shown = capsys.readouterr().out
    first = "- [nearest](#nearest), pruner.mode=nearest: -50.0 ["
    assert shown.startswith(f"## summary\n\n{first}") and ", +5.3 in the paper." in shown.splitlines()[2]
    assert "| farthest | 68.3, ours 70.0 ± 2.0 |" in shown and "| nearest | 63.0 |" in shown
    assert "| nearest | 36 | 75.0 [" in shown and "| contradicts |" in shown
    assert "n = 40; commit abcdef0." in shown
    assert "Scores themselves can be compared for 1 of 2 claims" in shown
    assert "3 of 3 runs are missing; `python -m experiments.tables search --run` makes them." in shown
    assert "python run.py -m experiment=search search=grid model=minidrive2" in shown
    assert "stale" in page.read_text() and "search=grid" in page.read_text(), "a page's summary is of all claims"


def test_a_page_of_all_claims_has_their_summary(folders, tmp_path):
    claim = Claim.read("nearest")
    for job, right in zip(claim.jobs, (0.25, 0.75), strict=True):
        folders.add(*claim.here(job), right=right)
    page = tmp_path / "page.md"
    page.write_text("<!-- claims:summary -->\nstale\n<!-- /claims:summary -->\n")
    tables.main(["--runs", str(folders.root), "--write", str(page)])
    assert "- [nearest](#nearest), pruner.mode=nearest: -50.0 [" in page.read_text() and "stale" not in page.read_text()


def test_missing_runs_are_made_once(folders, tmp_path, monkeypatch):
    made, searched = [], []
    monkeypatch.setattr(tables.Runs, "make", lambda self, options: made.extend(options))
    monkeypatch.setattr(tables, "search", lambda options, folder: searched.append(options))
    claims = [Claim.read(name) for name in ("nearest", "table2", "search")]
    there = claims[0].jobs[0]
    folders.add(*claims[0].here(there))
    tables.make_missing(claims, [folders.root])
    assert made == [claims[0].here(job) for job in claims[0].jobs[1:]]
    assert searched == [claims[2].here(job) for job in claims[2].jobs]
