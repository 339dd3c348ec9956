import pytest

from experiments import seeds
from experiments.minidrive import run
from experiments.runs import Runs
from prune2drive.minidrive.dataset import MiniDrive

QUESTIONS = 48
IDS = MiniDrive("test", size=QUESTIONS, version=2).ids


def rows_of(right):
    """Returns what stands for `Runs.rows`, where `right` gives the share of right answers from options and model."""

    def rows(runs, options):
        share = right(options, "checkpoint" in " ".join(runs.common))
        return [{"id": id, "answer": number % 12 < 12 * share, "reference": True} for number, id in enumerate(IDS)]

    return rows


def test_pairs_flip_where_both_models_are_sure_of_opposite_orders():
    methods = ("a", "b", "c")
    one = {("a", "b"): 1, ("a", "c"): 1, ("b", "c"): 0}
    other = {("a", "b"): -1, ("a", "c"): 1, ("b", "c"): -1}
    (line,) = seeds.agreement(
        [dict(zip(methods, values, strict=True)) for values in ((3, 2, 1), (2, 3, 1))], [one, other]
    )
    assert line == "models 1 and 2: Kendall's tau 0.33; 2 of 3 pairs are apart on both, 1 of them flip: `a` and `b`"


def test_methods_are_apart_where_no_resample_says_otherwise(tmp_path, monkeypatch):
    methods = {name: run(QUESTIONS, name) for name in ("tfps", "random", "uniform")}
    shares = {"tfps": 0.75, "random": 0.25, "uniform": 0.25}
    monkeypatch.setattr(
        Runs,
        "rows",
        rows_of(lambda options, _: next(share for name, share in shares.items() if f"pruner={name}" in options)),
    )
    assert seeds.order(Runs(tmp_path), methods) == {
        ("tfps", "random"): 1,
        ("tfps", "uniform"): 1,
        ("random", "uniform"): 0,
    }


@pytest.mark.slow
def test_command_writes_every_models_scores_and_how_they_agree(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Runs, "make", lambda *_: None)
    monkeypatch.setattr(
        Runs, "rows", rows_of(lambda options, other: 0.75 if ("pruner=tfps" in options) != other else 0.25)
    )
    page = tmp_path / "page.md"
    page.write_text("<!-- minidrive2:seeds -->\n<!-- /minidrive2:seeds -->")
    monkeypatch.setattr(seeds, "METHODS", ("tfps", "random"))
    arguments = ["--questions", str(QUESTIONS), "--folder", str(tmp_path), "--write", str(page)]
    seeds.main(["minidrive2", "minidrive2,checkpoint=DIR", *arguments])
    text = page.read_text()
    assert "| `tfps` | 75.0 [75.0, 75.0] | 25.0 [25.0, 25.0] | 75.0" in text and text.count("| `none` |") == 1
    assert "10%, models 1 and 2: Kendall's tau -1.00; 1 of 1 pairs are apart on both, 1 of them flip" in text
    assert text.split("\n", 1)[1].startswith(capsys.readouterr().out[:40])
