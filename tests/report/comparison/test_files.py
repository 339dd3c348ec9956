"""The files of a comparison: tables that can be read back, charts, and a page that needs nothing else."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from helpers.run_folders import run_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prune2drive.report import charts
from prune2drive.report.__main__ import main
from prune2drive.report.comparison.charts import spread_apart
from prune2drive.report.comparison.findings import find
from prune2drive.report.comparison.tables import SPECIAL, escape_tex, terminal, to_csv, to_tex
from prune2drive.report.comparison.write import write_comparison

pytestmark = pytest.mark.slow  # draws charts

HOSTILE = "pruner=a&b%c_d,\"e\"'f'\n<script>alert(1)</script>\\$#{}~^|"
LINE = HOSTILE.replace("\n", " ")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    run_folder(folder / "0", "none", [True] * 40, 1.0, 30)
    run_folder(folder / "1", "tfps", [True] * 30 + [False] * 10, 0.5, 20)
    run_folder(folder / "2", "x", [True, False] * 20, 0.5, 25, overrides=[HOSTILE, "ratios.keep=0.5"])
    run_folder(folder / "3", "tfps", [True] * 20 + [False] * 20, 0.1, 26)
    return folder


@pytest.fixture(scope="module")
def written(sweep, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    found = find([sweep, sweep / "gone"])
    return found, write_comparison(found, output)


def test_csv_reads_back_with_every_digit(written):
    found, page = written
    rows = list(csv.DictReader(io.StringIO((page.parent / "comparison.csv").read_text())))
    assert [row["run"] for row in rows] == [run.label for run in found.runs]
    assert rows[2]["options"] == f"{LINE} ratios.keep=0.5"
    for run, row in zip(found.runs, rows, strict=True):
        assert float(row["tokens/visual_kept"]) == run.metrics["tokens/visual_kept"]
        assert float(row["score_by_question"]) == found.differences.score[run]
    margin = found.differences.margin[found.runs[1]]
    numbers = [margin.value, margin.low, margin.high, margin.p]
    names = ("difference", "difference_low", "difference_high", "adjusted_p")
    assert [float(rows[1][name]) for name in names] == numbers
    assert [row["is_baseline"] for row in rows] == ["1", "0", "0", "0"] and rows[0]["difference"] == ""


def printed(tex):
    """What TeX makes of a cell."""
    letters = {command: letter for letter, command in SPECIAL.items()}
    longest_first = sorted(letters, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda found: letters[found[0]], tex)


def test_tex_reads_back(written):
    found, page = written
    lines = (page.parent / "comparison.tex").read_text().splitlines()
    body = [line.removesuffix(" \\\\") for line in lines if line.endswith("\\\\")]
    cells = [re.split(r"(?<!\\) & ", line) for line in body]
    assert len({len(row) for row in cells}) == 1 and len(cells) == 5
    columns = re.search(r"\\begin\{tabular\}\{(l)(r+)\}", "\n".join(lines))
    assert len(columns[1] + columns[2]) == len(cells[0])
    assert [line for line in lines if "rule" in line] == ["\\toprule", "\\midrule", "\\bottomrule"]
    names = {printed(row[0]) for row in cells[1:]}
    assert {run.label for run in found.runs[1:]} < names and "all tokens (baseline)" in names


words = st.text(st.sampled_from([*SPECIAL, "a", "1", "-", "ü"]), max_size=8)


@given(words)
def test_no_letter_is_lost_in_tex(text):
    tex = escape_tex(text)
    assert not re.search(r"(?<!\\)[&%#_]", tex)
    plain = re.sub(r"\\text\w+\{\}|\\[&%#_{}$]|\$-\$|~", "", tex)
    assert not set(plain) & set(SPECIAL)
    assert printed(tex) == " ".join(text.split(" ")).strip(" ")


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.inside, self.coloured = [], [[]], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "section":
            self.coloured.append([])
        if self.coloured and dict(attributes).get("class") in ("better", "worse"):
            self.coloured[-1].append(dict(attributes)["class"])
        self.inside = tag
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_data(self, data):
        if self.inside in ("td", "th"):
            self.cells[-1][-1] += data

    def handle_endtag(self, tag):
        self.inside = ""


def test_the_page_needs_nothing_else(written):
    _, file = written
    text = file.read_text()
    tags = Page(text).tags
    assert not [tag for tag, attributes in tags if tag in ("script", "link", "img", "iframe") or "src" in attributes]
    assert not re.search(r"https?:|@import|url\((?!#)", re.sub(r"http://www.w3.org/(1999/xlink|2000/svg)", "", text))


def test_the_page_shows_every_run_and_what_is_missing(written, sweep):
    found, file = written
    text = file.read_text()
    page = Page(text)
    table = page.cells[1:6]
    assert [row[0] for row in table[1:]] == [
        "all tokens (baseline)",
        "tfps keep=0.5",
        f"{LINE.partition('=')[2]} keep=0.5",
        "tfps keep=0.1",
    ]
    assert table[0][:3] == ["run", "score", "points against all tokens"] and table[2][2].startswith(
        "\N{MINUS SIGN}25.0 [\N{MINUS SIGN}"
    )
    assert f"{sweep / 'gone'} is left out: no such folder" in text
    margins = found.differences.margin.values()
    clear = ["better" if margin.value > 0 else "worse" for margin in margins if margin.is_clear]
    assert sorted(page.coloured[1]) == sorted(clear) and 0 < len(clear) < len(margins), (
        "what may be noise is not coloured"
    )
    assert text.count("<svg") == 4, "tokens, layer average, FLOPs and time"
    assert "By kind of question" in text and "Tokens of each camera" in text and "max-t bootstrap over scenes" in text


def test_times_have_their_number_and_interval_beside_them(written):
    table = Page(written[1].read_text()).cells[1:6]
    at = table[0].index("prefill ms, alone, n = 8")
    assert table[1][at].replace("\u00a0", " ") == "30 [27.6, 32.4]", "Student's, of 8 measurements"
    ratio = table[0].index("prefill time, n = 8")
    assert table[1][ratio] == "" and table[2][ratio].replace("\u00a0", " ") == "50 % [47.6, 52.4]"
    assert "prefill time" not in [str(column.header) for column in terminal(written[0]).columns], "it is narrow"
    assert "score" in table[0] and not [header for header in table[0] if header[:7] != "prefill" and "n =" in header]


def test_charts_say_what_to_read_off(written):
    captions = re.findall(r"<figcaption[^>]*>(.*?)</figcaption>", written[1].read_text())
    assert len(captions) == 4
    beats = "Higher and further left is better: the accent line joins the runs that no other beats in both"
    assert captions[0] == f"{beats} score and kept, 3 of 4; n = 40 questions."
    assert captions[-1].endswith("; n = 40 questions for score, 8 for prefill ms, alone.")


def test_charts_are_files_for_a_paper(written):
    _, page = written
    files = {file.name for file in (page.parent / "charts").iterdir()}
    names = ("score_against_kept", "score_against_FLOPs", "scores_by_kind_of_question", "tokens_of_each_camera")
    assert files > {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    with Image.open(page.parent / "charts/score_against_kept.png") as image:
        assert image.width == pytest.approx(charts.WIDTH * charts.DPI, rel=0.1)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    svg = (page.parent / "charts/score_against_kept.svg").read_text()
    assert "var(--" not in svg and "#b45309" in svg and "&lt;script&gt;" in svg and "<script" not in svg
    text = page.read_text()
    assert "var(--accent)" in text and "#b45309" not in text.partition("<svg")[2], "drawn after those of the paper"


heights = st.lists(st.floats(0, 1), max_size=9).map(sorted)


@given(heights, st.floats(0.01, 0.3))
def test_labels_are_a_line_apart_and_stay_in_place_where_they_can(places, gap):
    moved = spread_apart(places, gap)
    steps = [b - a for a, b in zip(moved, moved[1:], strict=False)]
    assert all(step >= gap - 1e-9 for step in steps)
    assert all(at >= -1e-9 for at in moved) and (not moved or moved[-1] <= max(1, gap * (len(moved) - 1)) + 1e-9)
    if all(b - a >= gap for a, b in zip(places, places[1:], strict=False)):
        assert moved == pytest.approx(places)


def test_the_command_compares_folders(sweep, tmp_path, capsys):
    main([str(sweep / "1"), str(sweep / "3"), str(tmp_path / "gone"), "--output", str(tmp_path / "out")])
    said = capsys.readouterr().out
    assert f"{tmp_path / 'gone'} is left out: no such folder" in said.splitlines()
    assert said.splitlines()[-1] == str(tmp_path / "out/comparison.html")
    assert "keep=0.5" in (tmp_path / "out/comparison.csv").read_text()
    main([str(sweep), "--baseline", "tfps keep=0.1"])
    assert "tfps keep=0.1 (baseline)" in (sweep / "comparison.html").read_text()


@pytest.mark.parametrize(
    ("names", "said"),
    [(["gone"], "gone is left out: no such folder"), (["1", "--baseline", "y"], "no run goes by this name")],
)
def test_the_command_refuses_in_one_line(sweep, capsys, names, said):
    with pytest.raises(SystemExit) as stop:
        main([str(sweep / names[0]), *names[1:]])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and errors.count("\n") == 1 and errors.startswith("error: ") and said in errors


def test_the_command_writes_a_runs_page_again(sweep, capsys):
    main([str(sweep / "1")])
    assert capsys.readouterr().out.strip() == str(sweep / "1/report.html") and (sweep / "1/report.html").is_file()


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert all(
        word in said for word in ("--baseline", "--output", "paired by question", "python -m prune2drive.report")
    )


def test_files_are_the_same_for_the_same_runs(sweep):
    found = find([sweep])
    assert (to_csv(found), to_tex(found)) == (to_csv(find([sweep])), to_tex(find([sweep])))
