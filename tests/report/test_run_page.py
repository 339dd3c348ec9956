"""A run's report.html."""

import base64
import io
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from prune2drive.errors import InputError
from prune2drive.report.run_page import TIME, write_report
from prune2drive.sample import Prediction


class Page(HTMLParser):
    """Rows of all tables, sources of pictures, text, and whether every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.sources, self.words = [], [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data.strip())


def page(folder, run=None, metrics=None, examples=()):
    return Page(write_report(folder, run or {}, metrics or {}, examples).read_text(encoding="utf-8"))


RUN = {
    "command": "python run.py pruner=tfps",
    "choices": {"model": "tiny", "dataset": "drivelm", "pruner": "tfps"},
    "config": {
        "pruner": {"_target_": "a.TFPS", "layer": 1, "seed": None},
        "ratios": {"_target_": "a.Fixed", "all": 0.1},
    },
    "counts": {"planned": 3, "failed": 1},
}


def test_headline(tmp_path):
    shown = page(tmp_path, RUN)
    assert not shown.open
    for text in ("tiny · drivelm · tfps · Fixed", "python run.py pruner=tfps", "tfps layer 1", "Fixed all 0.1"):
        assert text in shown.text
    assert "planned 3, failed 1" in shown.text and "choices" not in shown.text
    assert "_target_" not in shown.text and "seed" not in shown.text
    assert "0.25" in page(tmp_path, {"config": {"ratios": 0.25}}).text
    assert "mean tokens over all layers" in page(tmp_path, {"config": {"budget_axis": "layer_average"}}).text


@pytest.mark.parametrize(
    ("key", "value", "stderr", "row"),
    [
        ("accuracy", 0.8125, 0.0123, ["accuracy", "0.8125", "± 0.012", "32"]),
        ("coverage/objects", 0.5, 0, ["objects", "0.5", "± 0", "32"]),
        ("tokens/visual_full", 4374, 0, ["visual full", "4,374", "± 0", "32"]),
        ("tokens/CAM_BACK_LEFT/kept", 72.5, 12.3, ["CAM_BACK_LEFT kept", "72.5", "± 12", "32"]),
        ("flops/prefill_full", 6.13e13, 1e12, ["prefill full", "61.3 TFLOPs", "± 1", "32"]),
        ("flops/selection", 2.5e7, 0, ["selection", "25 MFLOPs", "± 0", "32"]),
        ("flops/ratio", 0.098, 0.001, ["ratio", "9.8 %", "± 0.1", "32"]),
        ("time/vision_ms", 1500, 20, ["vision", "1.5 s", "± 0.02", "32"]),
        ("time/decode_ms_per_token", 21.25, 1.5, ["decode per token", "21.25 ms", "± 1.5", "32"]),
        ("time/samples_per_s", 0.4, 0, ["samples per s", "0.4", "± 0", "32"]),
        ("memory/kv_cache_mb", 57.1, 0, ["kv cache", "57.1 MB", "± 0", "32"]),
        ("memory/peak_mb", 17100, 0, ["peak", "17.1 GB", "± 0", "32"]),
    ],
)
def test_metrics_carry_units_error_and_count(tmp_path, key, value, stderr, row):
    header = ["", "mean", "standard error", "n"]
    rows = page(tmp_path, metrics={key: value, f"{key}_n": 32, f"{key}_stderr": stderr}).rows
    assert [[cell for cell in found if cell] for found in rows] == [header[1:], row]


def test_metrics_are_grouped_by_the_part_before_the_slash(tmp_path):
    metrics = {
        "time/vision_ms": 3.0,
        "score": 0.5,
        "wait_n": 2,
        "x/y/z": 1,
        "coverage/CAM_BACK": 1,
        "full/time/a_ms": 2,
    }
    shown = page(tmp_path, metrics=metrics)
    headings = ("Quality", TIME, "X", "Object coverage", "Without pruning")
    assert [word for word in shown.words if word in headings] == list(headings)
    labels = [row[0] for row in shown.rows if "mean" not in row]
    assert labels == ["score", "wait n", "vision", "y z", "CAM_BACK", "time a"]


def test_what_runs_are_compared_by_is_shown_large(tmp_path):
    columns = {
        "score": {"label": "score", "is_share": True, "in_run": True, "in_comparison": True},
        "time/select_ms": {"label": "select ms", "is_share": False, "in_run": True, "in_comparison": True},
        "accuracy": {"label": "accuracy", "is_share": True, "in_run": True, "in_comparison": False},
        "tokens/nominal": {"label": "budget", "is_share": False, "in_run": False, "in_comparison": True},
    }
    metrics = {"accuracy": 0.75, "score": 0.5, "score_stderr": 0.1, "time/select_ms": 1500.0, "tokens/nominal": 4}
    shown = page(tmp_path, {"columns": columns}, metrics)
    assert "score 0.5 ± 0.1 time select 1.5 s Results" in shown.text and "in_comparison" not in shown.text


def test_examples(tmp_path):
    answered = Prediction(
        "id<1>",
        "Is <c1,CAM_BACK,1.0,2.0> <b>near</b>?",
        answer="<script>alert(1)</script>",
        reference="Yes & no \ud800",
        kept_counts={"CAM_BACK": 7},
        full_counts={"CAM_BACK": 64},
    )
    picture = tmp_path / "picture.png"
    Image.new("RGBA", (30, 20), "red").save(picture)
    shown = page(tmp_path, examples=[(answered, picture)])
    assert "script" not in shown.open and not shown.open
    for text in ("id<1>", answered.question, answered.answer, "Yes & no \\ud800", "CAM_BACK 7 of 64"):
        assert text in shown.text
    (source,) = shown.sources
    kind, data = source.split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (30, 20)
    unanswered = page(tmp_path, examples=[(Prediction("id2", "Why?"), picture)])  # task=coverage generates no answer
    assert "Why?" in unanswered.text and "answer" not in unanswered.text and "None" not in unanswered.text


def test_the_page_needs_nothing_else(tmp_path):
    html = write_report(tmp_path, RUN, {"score": 1.0}, []).read_text()
    assert "http" not in html and "url(" not in html and "<script" not in html
    assert "prefers-color-scheme: dark" in html


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    before = write_report(tmp_path, RUN, {"score": 0.25}, []).read_text()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match="report.html: cannot be written .disk full"):
        write_report(tmp_path, RUN, {"score": 0.75}, [])
    assert (tmp_path / "report.html").read_text() == before
