"""A study in a real PostgreSQL; skipped where none is installed."""

import json
import multiprocessing
import os
import re
import socket
import time

import optuna
import pytest
from helpers import servers
from helpers.made_up_runs import FEW
from helpers.studies import HOLD, in_a_process
from optuna.trial import TrialState

from prune2drive.search import active_study

pytestmark = pytest.mark.slow  # whole runs


psycopg = pytest.importorskip("psycopg", reason="no psycopg: pip install 'prune2drive[database]'")
SCRIPT = "postgres_server.sh"


class Database:
    """A database of a test's own, on a server that the test may stop and start."""

    def __init__(self, folder, url, name):
        self.folder, self.url = folder, f"{url.rpartition('/')[0]}/{name}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")

    def start(self) -> None:
        servers.reachable(self.folder.parent)  # again: another pytest that starts closes the folder of all
        servers.start(SCRIPT, self.folder)

    def stop(self) -> None:
        servers.stop(SCRIPT, self.folder)

    def trials(self, *states: TrialState) -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="s", storage=self.url).get_trials(states=states or None)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running server: its folder and the URL of a database."""
    folder = tmp_path_factory.mktemp("postgresql") / "data"
    servers.reachable(folder.parent)
    yield folder, servers.start(SCRIPT, folder)
    servers.stop(SCRIPT, folder)


@pytest.fixture
def database(server, tmp_path):
    return Database(*server, re.sub(r"\W", "_", tmp_path.name))


def busy_worker(database, workers):
    """Returns a worker and one of its trials, once all workers wait between asking and telling."""
    study = optuna.load_study(study_name="s", storage=database.url)
    before = None
    while (states := [trial.state for trial in study.get_trials(deepcopy=False)]) != before:
        before = states
        time.sleep(0.5)
    by_process = {str(worker.pid): worker for worker in workers}
    trial = next(trial for trial in study.get_trials() if trial.state == TrialState.RUNNING)
    return by_process[trial.user_attrs["worker"].split(":")[2]], trial


def test_four_workers_of_which_one_is_killed(database, tmp_path):
    """On an empty database, whose tables all four find missing."""
    results, trials = tmp_path / "results", 24
    results.mkdir()
    work = {"args": (results, trials, 0.2), "kwargs": {"storage": database.url}}
    workers = [multiprocessing.get_context("fork").Process(target=in_a_process, **work) for _ in range(4)]
    for worker in workers:
        worker.start()
    while len(list(results.glob("*.json"))) < 4:
        time.sleep(0.02)
    (results / HOLD).touch()
    victim, begun = busy_worker(database, workers)
    victim.kill()
    (results / HOLD).unlink()
    for worker in workers:
        worker.join()
    assert sorted(worker.exitcode for worker in workers) == [-9, 0, 0, 0]
    saved = database.trials()
    complete = {trial.number: trial for trial in saved if trial.state == TrialState.COMPLETE}
    written = {int(file.stem): json.loads(file.read_text()) for file in results.glob("*.json")}
    assert complete.keys() == written.keys() and len(complete) >= trials
    assert all(trial.user_attrs["reward"] == written[number]["score"] for number, trial in complete.items())
    tried = [tuple(trial.params.values()) for trial in complete.values()]
    assert len(set(tried)) == len(tried)
    assert all(trial.state in (TrialState.COMPLETE, TrialState.FAIL) for trial in saved)
    assert tuple(begun.params.values()) in tried, "another worker finishes what the killed one began"


def test_a_database_that_goes_away_and_comes_back(database, cli, launcher, tmp_path, monkeypatch):
    def outcome(ratios):
        if len(launcher.launched) == 3:
            database.stop()
        return {"score": ratios["CAM_FRONT"]}

    launcher.outcome = outcome
    command = ("-m", "search=tpe", *FEW, f"search.storage={database.url}", f"hydra.sweep.dir={tmp_path}/sweep")
    with monkeypatch.context() as earlier:  # a process that has ended when the search goes on
        earlier.setattr(active_study, "this_worker", lambda: f"{socket.gethostname()}:{os.getpid()}:0.0")
        code, _, errors = cli(*command)
    assert code == 2 and errors.count("\n") == 1, errors
    assert errors.startswith(f"error: search.storage={database.url}: lost (")
    assert errors.endswith(f"when it answers again, go on with search.resume={tmp_path}/sweep\n")
    code, _, errors = cli(*command)
    assert code == 2 and errors.startswith(f"error: search.storage={database.url}: cannot be used (connection failed")
    database.start()
    code, _, errors = cli(*command, f"search.resume={tmp_path}/sweep")
    assert (code, errors) == (0, "")
    searched = [job["folder"] for job in launcher.launched if job["folder"].isdigit()]
    assert searched == list("012345"), "the run that ended while the database was away is not made again"
    assert [trial.state for trial in database.trials()] == [TrialState.COMPLETE] * 6


def test_a_restart_between_two_trials_is_not_noticed(database, cli, launcher, tmp_path):
    def outcome(ratios):
        if len(launcher.launched) == 3:
            database.stop()
            database.start()
        return {"score": ratios["CAM_FRONT"]}

    launcher.outcome = outcome
    assert cli("-m", "search=tpe", *FEW, f"search.storage={database.url}")[0] == 0
    assert len(database.trials(TrialState.COMPLETE)) == 6
