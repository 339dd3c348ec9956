import json
import multiprocessing
import random
import time

import optuna
import pytest
from helpers.studies import CAMERAS, CANDIDATES, in_a_process, score, search, study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from prune2drive.errors import InputError
from prune2drive.search.nni import SAMPLERS as NNI
from prune2drive.search.optuna_samplers import SAMPLERS as OPTUNA
from prune2drive.search.storage import default_storage

pytestmark = pytest.mark.slow  # whole runs


SEARCHES = [("optuna", name) for name in OPTUNA] + [("nni", name) for name in NNI]


def keys(evaluated):
    return {tuple(round(ratio, 6) for ratio in ratios.values()) for ratios in evaluated}


@pytest.fixture
def journal(tmp_path) -> dict[str, str]:
    """A storage without SQL, for what many trials show of samplers."""
    return {"storage": str(tmp_path / "trials.log")}


@pytest.mark.parametrize(("engine", "sampler"), SEARCHES)
def test_a_resumed_search_tries_nothing_twice(engine, sampler, tmp_path, journal):
    evaluated = []
    for trials in (5, 9):
        evaluated += search(study(tmp_path, sampler, engine, trials, **journal), at_once=2)
    expected = len(CANDIDATES) if sampler == "batch" else 9
    assert len(evaluated) == len(keys(evaluated)) == expected
    searched = study(tmp_path, sampler, engine, 9, **journal)
    assert len(searched.trials) == expected and searched.ask(1) == []
    repeats = [trial for trial in searched.optuna_study.trials if "same as" in trial.user_attrs.get("left_out", "")]
    assert not repeats or sampler == "batch", "a resumed sampler does not begin again"
    (best,) = searched.best(1)
    assert best.reward == pytest.approx(max(score(each) for each in [best.ratios]))
    values = [score(each) - 0.1 * sum(each.values()) for each in evaluated]
    assert best.objective == pytest.approx(max(values)) and best.ratios in evaluated


@pytest.mark.parametrize(
    ("engine", "sampler", "total"),
    [
        ("optuna", "tpe", 50),
        ("optuna", "cmaes", 50),
        ("nni", "tpe", 50),
        ("nni", "evolution", 80),
    ],  # 32 begin evolution
)
def test_a_search_that_learns_beats_its_own_beginning(engine, sampler, total, tmp_path, journal):
    values = []
    for trials in (total // 2, total):  # what is learned outlives the process
        evaluated = search(study(tmp_path, sampler, engine, trials, **journal))
        values += [score(each) - 0.1 * sum(each.values()) for each in evaluated]
    early, late = sum(values[:15]) / 15, sum(values[-15:]) / 15
    assert late > early and max(values) == max(values[15:])


def test_evolution_draws_from_a_stream_of_its_own(tmp_path, journal):
    """A run in this process seeds Python's generator, as every run does."""
    searched = study(tmp_path, "evolution", "nni", 45, **journal)
    tried = []
    while asked := searched.ask(1):
        random.seed(0)
        searched.tell(asked[0], {"score": score(asked[0].ratios)})
        random.seed(0)
        tried.append(asked[0].ratios)
    changed = set()
    for child in tried[32:]:
        others = (other for other in tried if other != child)
        changed |= min(({camera for camera in CAMERAS if child[camera] != other[camera]} for other in others), key=len)
    assert changed == set(CAMERAS)


def test_a_resumed_evolution_mutates_what_it_has(tmp_path, journal):
    before = search(study(tmp_path, "evolution", "nni", trials=40, **journal))
    (child,) = search(study(tmp_path, "evolution", "nni", trials=41, **journal))
    assert max(sum(child[camera] == parent[camera] for camera in CAMERAS) for parent in before) == len(CAMERAS) - 1


def test_a_grid_is_gone_through_once_and_ends(tmp_path):
    evaluated = search(study(tmp_path, "grid", trials=8, levels=2))
    evaluated += search(study(tmp_path, "grid", trials=100, levels=2))
    assert keys(evaluated) == {(a, b, c) for a in (0.02, 1.0) for b in (0.02, 1.0) for c in (0.02, 1.0)}
    assert len(evaluated) == 8


def test_weights_that_are_the_same_ratios_are_not_evaluated_again(tmp_path):
    """On the simplex only proportions count."""
    evaluated = search(study(tmp_path, "grid", trials=100, levels=2, space="simplex", keep=0.3))
    searched = study(tmp_path, "grid", trials=100, levels=2, space="simplex", keep=0.3)
    assert len(evaluated) == len(keys(evaluated)) == 7  # all low and all high are both uniform
    told = [trial for trial in searched.optuna_study.trials if "the same as" in trial.user_attrs.get("left_out", "")]
    assert [trial.state for trial in told] == [TrialState.COMPLETE]
    assert all(sum(ratios.values()) == pytest.approx(0.9) for ratios in evaluated)


def test_nsga2_has_two_objectives(tmp_path):
    search(study(tmp_path, "nsga2", trials=6))
    saved = optuna.load_study(study_name="s", storage=default_storage(tmp_path))
    for trial in saved.trials:
        total = sum(trial.user_attrs["ratios"].values())
        assert trial.values == pytest.approx([score(trial.user_attrs["ratios"]), total])


def test_a_failed_trial_is_recorded_and_the_search_goes_on(tmp_path):
    searched = study(tmp_path, trials=5)
    first, second = searched.ask(2)
    searched.fail(first, "out of memory")
    searched.tell(second, {"accuracy": 1.0})  # no score
    searched.check_errors()
    assert len(search(searched)) == 3
    errors = [trial.error for trial in searched.trials if trial.error]
    assert errors[0] == "out of memory" and "no score; it has accuracy" in errors[1]
    assert len(searched.best(10)) == 3


def test_the_same_error_three_times_in_a_row_ends_the_search(tmp_path):
    searched = study(tmp_path, trials=10)
    for error in ("a", "a", None, "a", "b", "a", "a"):
        (trial,) = searched.ask(1)
        searched.tell(trial, {"score": 0.0}) if error is None else searched.fail(trial, error)
        searched.check_errors()
    (trial,) = searched.ask(1)
    searched.fail(trial, "a")
    with pytest.raises(InputError, match="3 trials in a row failed: a"):
        searched.check_errors()


def test_an_interrupted_trial_is_tried_again(tmp_path):
    searched = study(tmp_path, trials=3)
    first, second = searched.ask(2)
    searched.tell(first, {"score": 1.0})
    searched.give_up(second.number)
    searched.close()
    evaluated = search(study(tmp_path, trials=3))
    assert evaluated[0] == second.ratios and len(evaluated) == 2


def test_a_trial_that_two_processes_give_up_is_evaluated_once(tmp_path):
    searched = study(tmp_path, trials=5)
    (trial,) = searched.ask(1)
    searched.give_up(trial.number)
    with pytest.raises((UpdateFinishedTrialError, ValueError)):
        searched.give_up(trial.number)
    assert len(searched.optuna_study.get_trials(states=[TrialState.WAITING])) == 1
    searched.close()
    evaluated = search(study(tmp_path, trials=5))
    assert len(evaluated) == 5 and evaluated.count(trial.ratios) == 1


def test_a_trial_is_tried_again_even_where_others_filled_the_study(tmp_path):
    """Another process may take its place between the moment in which it is given up and the next proposal."""
    searched = study(tmp_path, trials=3)
    given, *others = searched.ask(3)
    for trial in others:
        searched.tell(trial, {"score": 0.5})
    enqueue, searched.optuna_study.enqueue_trial = searched.optuna_study.enqueue_trial, lambda params: None
    searched.give_up(given.number)
    (filling,) = searched.ask(3)
    searched.tell(filling, {"score": 0.5})
    assert searched.remaining == 0
    enqueue(searched.optuna_study.trials[given.number].params)
    (again,) = searched.ask(3)
    assert again.ratios == given.ratios and searched.remaining == 0
    searched.close()


WRONG = {
    "engine": ({"engine": "skopt"}, "search.engine=skopt: choose from optuna, nni"),
    "sampler": ({"sampler": "gp"}, "search.sampler=gp: optuna has no such sampler; choose from tpe, cmaes"),
    "nni sampler": ({"engine": "nni", "sampler": "smac"}, "search.sampler=smac: nni has no such sampler"),
    "levels": ({"sampler": "grid", "levels": 1}, "search.levels=1"),
    "candidates": ({"engine": "nni", "sampler": "batch", "candidates": ()}, "search.candidates is empty"),
    "storage": ({"storage": "sqlite:////nowhere/s.db"}, "search.storage=sqlite:////nowhere/s.db: cannot be used"),
    "journal": ({"storage": "/nowhere/s.log"}, "search.storage=/nowhere/s.log: cannot be used"),
    "url": ({"storage": "oracle9://x/y"}, "search.storage=oracle9://x/y: cannot be used"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_bad_settings_are_one_line(wrong, tmp_path):
    options, message = WRONG[wrong]
    with pytest.raises(InputError, match=message) as raised:
        study(tmp_path, **options)
    assert "\n" not in str(raised.value)


def test_a_storage_that_is_no_database(tmp_path):
    (tmp_path / "study.db").write_text("notes " * 100)
    with pytest.raises(InputError, match=r"study.db: cannot be used \(file is not a database"):
        study(tmp_path)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a search that has begun."""
    folder = tmp_path_factory.mktemp("begun")
    search(study(folder, trials=2))
    return folder


@pytest.mark.parametrize(
    "other",
    [
        {"identity": {"model": "minidrive"}},
        {"identity": {"model": "tiny", "split": "val"}},
        {"penalty": 0.2},
        {"space": "simplex"},
        {"sampler": "nsga2"},
    ],
)
def test_the_study_of_another_search_is_refused(other, begun):
    with pytest.raises(InputError, match="study s: its trials are of another search: .* was .*, now"):
        study(begun, **other)


def test_identity_survives_a_move_of_a_class(tmp_path):
    search(study(tmp_path, trials=2, identity={"model": {"_target_": "package.old.Tiny", "seed": 1}}))
    moved = {"_target_": "package.new.place.Tiny", "seed": 1}
    assert len(search(study(tmp_path, trials=3, identity={"model": moved}))) == 1
    with pytest.raises(InputError, match=r"model\._target_ was package\.old\.Tiny, now package\.new\.Small; choose"):
        study(tmp_path, identity={"model": moved | {"_target_": "package.new.Small"}})
    with pytest.raises(InputError, match="model.size was not set, now 3; an earlier version .* may have begun it"):
        study(tmp_path, identity={"model": moved | {"size": 3}})


def test_a_journal_file_is_a_storage_too(tmp_path):
    journal = str(tmp_path / "journal.log")
    evaluated = search(study(tmp_path, trials=2, storage=journal)) + search(study(tmp_path, trials=4, storage=journal))
    assert len(keys(evaluated)) == len(evaluated) == 4 and not (tmp_path / "study.db").exists()


def test_another_sampler_may_go_on(tmp_path):
    search(study(tmp_path, "random", trials=3))
    assert len(search(study(tmp_path, "tpe", "nni", trials=5))) == 2


def test_processes_share_a_study(tmp_path):
    """What another process evaluates or is evaluating is not tried here, and counts."""
    ours, theirs = (study(tmp_path, "grid", trials=6) for _ in range(2))
    asked = [*ours.ask(2), *theirs.ask(2), *ours.ask(2), *theirs.ask(2)]
    assert len(asked) == 6 and len(keys(trial.ratios for trial in asked)) == 6
    late = study(tmp_path, "random", trials=6)  # it must not think the others dead
    assert late.remaining == 0


def test_killed_at_random_moments(tmp_path):
    """Every result is kept once: those told, and those written by a run whose process did not live to tell."""
    trials, draw = 24, random.Random(1)
    fork = multiprocessing.get_context("fork")
    for _ in range(4):
        process = fork.Process(target=in_a_process, args=(tmp_path, trials))
        written = len(list(tmp_path.glob("*.json")))
        process.start()
        while process.is_alive() and len(list(tmp_path.glob("*.json"))) < written + 4:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        process.join()
    in_a_process(tmp_path, trials)
    saved = optuna.load_study(study_name="s", storage=default_storage(tmp_path)).trials
    complete = {trial.number: trial for trial in saved if trial.state == TrialState.COMPLETE}
    results = {int(file.stem): json.loads(file.read_text()) for file in tmp_path.glob("*.json")}
    assert complete.keys() == results.keys() and len(complete) == trials
    assert all(trial.user_attrs["reward"] == results[number]["score"] for number, trial in complete.items())
    assert len(keys(trial.params for trial in complete.values())) == trials
    assert all(trial.state != TrialState.RUNNING for trial in saved)
    interrupted = {tuple(t.params.values()) for t in saved if "interrupted" in t.user_attrs.get("left_out", "")}
    assert {each for each in interrupted if len(each) == 3} <= {tuple(t.params.values()) for t in complete.values()}


def test_two_processes_at_once_make_no_trial_twice(tmp_path):
    study(tmp_path, trials=16).close()
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=in_a_process, args=(tmp_path, 16)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    saved = optuna.load_study(study_name="s", storage=default_storage(tmp_path)).trials
    complete = [trial for trial in saved if trial.state == TrialState.COMPLETE]
    workers = {trial.user_attrs["worker"] for trial in complete}
    assert len(complete) == len(keys(trial.params for trial in complete)) >= 16 and len(workers) == 2
