"""A run's report.html, but for what needs a browser."""

import json
import os
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from helpers.page_runs import minidrive, write_run

from prune2drive.errors import InputError
from prune2drive.metrics import efficiency, object_coverage
from prune2drive.metrics.drivelm import DriveLMScore
from prune2drive.metrics.exact_match import ExactMatch
from prune2drive.metrics.intervals import difference
from prune2drive.report import numbers
from prune2drive.report.camera_names import CameraNames
from prune2drive.report.finished_run import FinishedRun
from prune2drive.report.paired import Paired
from prune2drive.report.run_bars import bars_of
from prune2drive.report.run_page import verdict, write_report
from prune2drive.report.run_tables import scores_table
from prune2drive.sample import Sample

COLUMNS = {**ExactMatch.columns, **object_coverage.COLUMNS, **efficiency.COLUMNS}


class Page(HTMLParser):
    """Rows of all tables, text outside scripts, and whether every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.words = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "input"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            return
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th") or self.open[-2:-1] in (["td"], ["th"]):
            self.rows[-1].append(data.strip())


def page(folder, run=None, metrics=None):
    shown = Page(write_report(folder, run or {}, metrics or {}).read_text(encoding="utf-8"))
    assert not shown.open
    return shown


RUN = {
    "command": "python run.py pruner=tfps",
    "choices": {"model": "tiny", "dataset": "drivelm", "pruner": "tfps"},
    "config": {
        "pruner": {"_target_": "a.TFPS", "layer": 1, "seed": None},
        "ratios": {"_target_": "a.Fixed", "all": 0.1},
    },
    "counts": {"planned": 3, "failed": 1},
    "is_noise": True,
}


def test_what_was_run_is_folded_away(tmp_path):
    shown = page(tmp_path, RUN)
    for text in ("tiny · drivelm · tfps · Fixed", "python run.py pruner=tfps", "tfps layer 1", "Fixed all 0.1"):
        assert text in shown.text
    assert "1 of 3 questions failed" in shown.text and "noise" in shown.text
    for text in ("choices", "is noise", "_target_", "seed"):
        assert text not in shown.text
    assert "0.25" in page(tmp_path, {"config": {"ratios": 0.25}}).text
    assert "mean tokens over all layers" in page(tmp_path, {"config": {"budget_axis": "layer_average"}}).text


def test_same_names_are_said_once(tmp_path):
    shown = page(tmp_path, {"choices": {"model": "minidrive", "dataset": "minidrive", "pruner": "tfps"}})
    assert "minidrive · tfps" in shown.words


def test_a_run_that_keeps_all_tokens_is_called_so(tmp_path):
    run = {"choices": {"model": "tiny", "dataset": "drivelm", "pruner": "none", "ratios": "per_camera"}}
    counts = {"tokens/visual_full": 384, "tokens/visual_kept": 384}
    assert "tiny · drivelm · all tokens" in page(tmp_path, run, counts).words
    assert "tiny · drivelm · none · per_camera" in page(tmp_path, run, {**counts, "tokens/visual_kept": 36}).words
    write_run(tmp_path, [minidrive(1)[0][0]], ["yes"], keep=63)
    assert '"names":["all tokens"]' in write_report(tmp_path, run, counts).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run that answers every fourth question wrong, beside one with all tokens that errs in one of ten."""
    folder = tmp_path_factory.mktemp("run")
    dataset, config = minidrive(60)
    samples = [dataset[place] for place in range(60)]
    right = [sample.reference for sample in samples]
    full = ["no" if place % 10 == 7 else answer for place, answer in enumerate(right)]
    pruned = ["no" if place % 4 == 0 else answer for place, answer in enumerate(right)]
    write_run(folder / "full", samples, full, dataset=config)
    rows = write_run(folder, samples, pruned, 6, config)
    ours, theirs = (
        {sample.id: float(answer == sample.reference) for sample, answer in zip(samples, each, strict=True)}
        for each in (pruned, full)
    )
    metrics = {"score": 0.75, "full/score": 0.9, "tokens/visual_full": 384.0, "tokens/visual_kept": 36.0}
    metrics |= {"full/tokens/visual_kept": 384.0, "time/prefill_ratio": 0.4, "flops/ratio": 0.349}
    return folder, rows, ours, theirs, metrics


def test_the_verdict_has_the_paired_interval(both):
    folder, rows, ours, theirs, metrics = both
    run = json.loads((folder / "run.json").read_text())
    shown = page(folder, run, metrics)
    expected = difference(*(each for each in (ours, theirs)), {r.id: r.scene for r in rows})
    said = f"{100 * expected.value:.1f} [{100 * expected.low:.1f}, {100 * expected.high:.1f}]".replace(
        "-", "\N{MINUS SIGN}"
    )
    sentence = next(words for words in shown.words if words.startswith("Keeps"))
    assert sentence.replace("\u00a0", " ") == (
        "Keeps 9.4 % of the visual tokens (36 of 384); 75 % answers right against 90 % with all tokens, "
        f"{said}; prefill 2.5 times as fast, with 34.9 % of the FLOPs."
    )


def test_types_of_question_and_cameras_are_counted_from_the_rows(both):
    folder, rows, ours, theirs, metrics = both
    shown = page(folder, json.loads((folder / "run.json").read_text()), metrics)
    kinds = {row.kind for row in rows}
    start = [row[0] for row in shown.rows].index("type") + 1
    table = {row[0]: row for row in shown.rows[start : start + len(kinds)]}
    for kind in kinds:
        ids = [row.id for row in rows if row.kind == kind]
        found = [f"{100 * sum(each[id] for id in ids) / len(ids):.4g}" for each in (theirs, ours)]
        assert [cell.partition("\u00a0")[0] for cell in table[kind][1:3]] == found and table[kind][-1] == str(len(ids))
    losses = [sum(ours[row.id] - theirs[row.id] for row in rows if row.kind == kind) for kind in table]
    assert losses == sorted(losses), "the kind that lost most is first"


def test_scores_that_repeat_another_are_left_out():
    same = {
        "score": 0.5,
        "score_n": 4,
        "score_stderr": 0.1,
        "exact_match": 0.5,
        "exact_match_n": 4,
        "exact_match_stderr": 0.1,
    }
    metrics = {**same, "accuracy": 0.25, "cider": 3.0, "coverage/objects": 0.5}
    table = scores_table(metrics, COLUMNS, Paired())
    assert [row[0] for row in table.rows] == ["score", "right choices, yes and no"]
    assert [cell.replace("\u00a0", " ") for cell in table.rows[0][1:]] == ["50 % [30.4, 69.6]", "4"]
    timed = scores_table({**metrics, "full/time/prefill_ms": 60}, COLUMNS, Paired())
    assert timed == table, "full times alone make no column of scores with all tokens"
    assert scores_table({"bleu_1": 1.0}, COLUMNS, Paired()) is None


def test_every_score_that_is_a_mean_over_questions_has_a_paired_interval(tmp_path):
    metric = {"_target_": "prune2drive.metrics.drivelm.DriveLMScore"}
    frames = [f"s{number}_f" for number in range(8)]
    car = "<c1,CAM_BACK,1088.3,497.5>"
    asked = [(frame, 1, "B", (0,)) for frame in frames] + [(frame, 2, car, (3,)) for frame in frames]
    asked += [(frame, 3, "A red car ahead.", (2,)) for frame in frames]
    samples = [
        Sample(f"{frame}_{at}", {}, "?", "?", reference, scene=frame, frame=frame, tags=tags)
        for frame, at, reference, tags in sorted(asked)
    ]
    right = [sample.reference for sample in samples]
    rows = write_run(tmp_path / "full", samples, right, metrics=metric)
    spoilt = [answer if place % 5 else "no" for place, answer in enumerate(right)]
    rows = write_run(tmp_path, samples, spoilt, 6, metrics=metric)
    before, after = (DriveLMScore()(list(FinishedRun.read(each).rows)) for each in (tmp_path / "full", tmp_path))
    metrics = {**after, **{f"full/{key}": value for key, value in before.items()}, "full/tokens/visual_kept": 9}
    columns = {key: asdict(column) for key, column in DriveLMScore.columns.items()}
    run = json.loads((tmp_path / "run.json").read_text()) | {"columns": columns}
    shown = page(tmp_path, run, metrics)
    table = {row[0]: row[3] for row in shown.rows if len(row) == 5}
    groups = {row.id: row.scene for row in rows}
    parts = [DriveLMScore().parts_by_question(FinishedRun.read(each).rows) for each in (tmp_path, tmp_path / "full")]
    for key, label in (("accuracy", "right choices, yes and no"), ("match_f1", "F1 of located objects")):
        assert table[label] == numbers.points(difference(*(each[key] for each in parts), groups))
    assert all(table[label].endswith("\u00a0*") and "[" not in table[label] for label in ("score", "language"))
    assert "* no interval: this score is of all answers together" in shown.text


def test_times_have_their_number_and_interval():
    metrics = {"time/prefill_ms": 30, "time/prefill_ms_n": 8, "time/prefill_ms_stderr": 1}
    metrics |= {f"full/{key}": 2 * value if key == "time/prefill_ms" else value for key, value in metrics.items()}
    metrics |= {"time/prefill_ratio": 0.5, "time/prefill_ratio_n": 8, "time/prefill_ratio_stderr": 0.02}
    assert bars_of(metrics)[-1].note.replace("\u00a0", " ") == (
        "Mean of 8 questions, each answered alone, with 95 % intervals: prefill 60 ms [57.6, 62.4] with all tokens, "
        "30 ms [27.6, 32.4] pruned, which is 50 % [45.3, 54.7]."
    )
    said = verdict(metrics, "", None, Paired()).replace("\u00a0", " ")
    assert said == "prefill 2.0 [1.8, 2.2] times as fast (8 questions timed)."


def test_costs_are_bars_by_part():
    metrics = {"tokens/visual_full": 384, "tokens/visual_kept": 36, "tokens/text": 70, "tokens/layer_average": 36}
    metrics |= {"flops/prefill_full": 4e9, "flops/prefill_pruned": 1e9, "flops/vision": 2e9, "flops/selection": 1e6}
    metrics |= {"time/prefill_ms": 30, "time/select_ms": 10, "time/vision_ms": 20, "full/time/prefill_ms": 60}
    tokens, flops, time = bars_of(metrics | {"full/time/vision_ms": 20})
    assert tokens.bars == {"all tokens": ([384, 70], "454"), "pruned": ([36, 70], "106")}, "the mean repeats the last"
    assert flops.parts == ["vision", "decoder", "selection"] and flops.bars["pruned"][1] == "3 GFLOPs"
    assert time.bars == {"all tokens": ([20, 60, 0], "80 ms"), "pruned": ([20, 20, 10], "50 ms")}
    assert bars_of({}) == []


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (numbers.percent(0.905), "90.5 %"),
        (numbers.percent(0.09), "9 %"),
        (numbers.percent(0.0004), "0.04 %"),
        (numbers.percent(1.0), "100 %"),
        (numbers.percent(0.0), "0 %"),
        (numbers.number(4374.4), "4,374"),
        (numbers.number(105.6), "105.6"),
        (numbers.number(36.0), "36"),
        (numbers.number(-0.25), "\N{MINUS SIGN}0.25"),
        (numbers.flops(6.13e13), "61.3 TFLOPs"),
        (numbers.flops(12), "12 FLOPs"),
        (numbers.milliseconds(1500), "1.5 s"),
        (numbers.milliseconds(35.814), "35.8 ms"),
    ],
)
def test_rounding(written, text):
    assert written.replace("\u00a0", " ") == text


def test_cameras_that_a_text_names():
    names = CameraNames(["CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK", "roof.cam"])
    assert names.mentioned("<c1,CAM_FRONT_LEFT,1.0,2.0>") == [1]
    assert names.mentioned("is to the front left of the car, or the Back") == [1, 2]
    assert names.mentioned("the front camera and roof.cam, not roofxcam") == [0, 3]
    assert names.mentioned("in front of it, going back") == []
    clip = CameraNames(["CAM_FRONT@0", "CAM_FRONT@1", "CAM_BACK@0"])
    assert clip.mentioned("the front view, or <c1,CAM_FRONT,1.0,2.0>") == [0, 1]
    assert clip.mentioned("cam_front@1 and the bac\N{KELVIN SIGN}") == [1, 2]


def test_the_page_needs_nothing_else(both):
    folder, *_, metrics = both
    html = write_report(folder, json.loads((folder / "run.json").read_text()), metrics).read_text()
    assert "http" not in html and "url(" not in html and "src=" not in html
    assert "prefers-color-scheme: dark" in html and len(html) < 5_000_000


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    before = write_report(tmp_path, RUN, {"score": 0.25}).read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="report.html: cannot be written .disk full"):
        write_report(tmp_path, RUN, {"score": 0.75})
    assert (tmp_path / "report.html").read_text() == before
