import json
import logging
import math
import os
import shutil
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

from prune2drive.errors import InputError
from prune2drive.metrics.language import score_captions, tokenize_java, tokenize_regex

pytestmark = pytest.mark.slow  # corpora, and Java

needs_java = pytest.mark.skipif(not shutil.which("java"), reason="no java on PATH")
needs_library_tokenizer = pytest.mark.skipif(
    not shutil.which("java") or not os.access(Path(ptbtokenizer.__file__).parent, os.W_OK),
    reason="pycocoevalcap's tokenizer needs java and writes into its own folder",
)

PREDICTIONS = [
    "A red car is ahead of the ego car.",
    "Two vans, parked (left).",
    "",
    "It doesn't move; the answer is B.",
]
REFERENCES = ["A red car is in front of the ego car.", "Two vans are parked on the left.", "A bus.", "It doesn't move."]
EXAMPLES = {
    "It's the car's left; don't move!": "it 's the car 's left do n't move",
    "I CAN'T, they’ll, we've, you cannot": "i ca n't they 'll we 've you can not",
    "(a) [b] {c} \"d\" 'e' `f`": "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb- d e f",
    "wait... what -- now? yes": "wait what now yes",
    "really?! yes!!": "really ?! yes !!",
    "<c1,CAM_FRONT_LEFT,1088.3,497.5>.": "< c1 cam_front_left ,1088.3,497.5 >",
    "<image> </s> left <b>": "<image> </s> left <b>",
    "e.g. the U.S. at 5 p.m. etc.": "e.g. the u.s. at 5 p.m. etc.",
    "Mr. Smith on Main St. vs. a van": "mr. smith on main st. vs. a van",
    "No. 5 but no. It is": "no. 5 but no it is",
    "A. Going ahead. B. The car": "a. going ahead b the car",
    "30 km/h, 2.5m, 5km, 50%, -5 and 5-6": "30 km/h 2.5 m 5km 50 % -5 and 5-6",
    "a left-hand turn and/or a U-turn": "a left-hand turn and/or a u-turn",
    "It stops.The van goes": "it stops.the van goes",
    "*bold* #tag x = 1 & y": "* bold * #tag x = 1 & y",
}
BREAKS = "\n \r \r\n \v \f \x85 \u2028 \u2029".split(" ")
KEYS = [*(f"bleu_{n}" for n in range(1, 5)), "rouge_l", "cider", "language"]

WORDS = "a the car cars truck is not moving ahead left right of red ego stop two".split()
captions = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
pairs = st.lists(st.tuples(captions, captions), min_size=2, max_size=7)


@pytest.fixture
def without_java(monkeypatch):
    monkeypatch.setenv("PATH", "")


def values(predictions, references):
    return {key: estimate.value for key, estimate in score_captions(predictions, references).estimates.items()}


@pytest.fixture(scope="module")
def plain():
    """`score_captions` without Java, quick enough for many examples of plain words."""

    def score(predictions, references):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", "")
            return score_captions(predictions, references).estimates

    return score


def library(predictions, references):
    """pycocoevalcap's corpus values for tokenized captions."""
    gts, res = ({n: [line] for n, line in enumerate(lines)} for lines in (references, predictions))
    bleu = Bleu(4).compute_score(gts, res, verbose=0)[0]
    scores = dict(
        zip(KEYS, [*bleu, Rouge().compute_score(gts, res)[0], Cider().compute_score(gts, res)[0]], strict=False)
    )
    return scores | {"language": sum(bleu) / 4 / 3 + scores["rouge_l"] / 3 + scores["cider"] / 10 / 3}


def library_tokenize(lines):
    tokens = ptbtokenizer.PTBTokenizer().tokenize({n: [{"caption": line}] for n, line in enumerate(lines)})
    return [line for (line,) in tokens.values()]


def strings(content):
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from strings(item)
    elif isinstance(content, str):
        yield content


@pytest.fixture(scope="session")
def sample_captions(drivelm_sample):
    """Every question, answer and description of the sample, in the order of the files; no image paths."""
    files = ("output.json", "test_eval.json", "train_sample.json")
    found = [text for file in files for text in strings(json.loads((drivelm_sample / file).read_text()))]
    return [text.replace("\n", " ") for text in dict.fromkeys(found) if not text.endswith(".jpg")]


@needs_library_tokenizer
def test_values_are_pycocoevalcaps_to_the_last_bit():
    expected = library(library_tokenize(PREDICTIONS), library_tokenize(REFERENCES))
    found = values(PREDICTIONS, REFERENCES)
    assert list(found) == KEYS
    assert found == pytest.approx(expected, rel=1e-14)
    assert {key: found[key] for key in KEYS[:-1]} == {key: expected[key] for key in KEYS[:-1]}


@needs_library_tokenizer
def test_java_tokens_are_pycocoevalcaps(sample_captions):
    lines = [*sample_captions, "", "  ", "naïve “café” — 5 €", *PREDICTIONS, ""]
    assert list(tokenize_java(lines)) == library_tokenize(lines)
    assert list(tokenize_java(["a car \ud83d", "b"]))[1] == "b"  # which the library cannot encode


@pytest.mark.parametrize("tokenize", [pytest.param(tokenize_java, marks=needs_java), tokenize_regex])
def test_a_caption_is_read_with_the_start_of_the_next(tokenize):
    assert list(tokenize(["B.", "The car", "B.", "red"])) == ["b", "the car", "b.", "red"]


@pytest.mark.parametrize("tokenize", [pytest.param(tokenize_java, marks=needs_java), tokenize_regex])
def test_line_breaks_and_empty_captions_keep_their_place(tokenize):
    lines = [["", f"two{each}vans", each, "a <b", "c> d", ""] for each in BREAKS]  # in one start of Java
    tokens = list(tokenize(sum(lines, [])))
    assert tokens == ["", "two vans", "", "a < b", "c > d", ""] * len(BREAKS)


@needs_java
def test_regex_tokens_are_javas_on_the_sample(sample_captions):
    java, regex = list(tokenize_java(sample_captions)), list(tokenize_regex(sample_captions))
    assert len(sample_captions) > 400
    assert [pair for pair in zip(java, regex, strict=True) if pair[0] != pair[1]] == []


@pytest.mark.parametrize("tokenize", [pytest.param(tokenize_java, marks=needs_java), tokenize_regex])
def test_tokens_by_example(tokenize):
    apart = [line for caption in EXAMPLES for line in (caption, "and")]  # which ends no sentence before it
    *found, last = tokenize([*apart, "at 5 p.m. etc."])
    assert dict(zip(EXAMPLES, found[::2], strict=True)) == EXAMPLES and last == "at 5 p.m. etc."


@given(pairs)
@settings(max_examples=60)
def test_standard_errors_are_those_of_leaving_each_sample_out(plain, drawn):
    """Naive recomputation with the library; CIDEr with the document frequencies of all references."""
    estimates = plain(*zip(*drawn, strict=True))
    predictions, references = ([" ".join(line.split()) for line in column] for column in zip(*drawn, strict=True))
    n = len(drawn)
    whole = ({i: [line] for i, line in enumerate(lines)} for lines in (references, predictions))
    cider_N = Cider().compute_score(*whole)[1] if any(references) else np.zeros(n)
    without = []
    for out in range(n):
        rest = [index for index in range(n) if index != out]
        gts, res = ({i: [lines[i]] for i in rest} for lines in (references, predictions))
        bleu = Bleu(4).compute_score(gts, res, verbose=0)[0]
        rouge, cider = Rouge().compute_score(gts, res)[0], np.mean([cider_N[i] for i in rest])
        without.append([*bleu, rouge, cider, sum(bleu) / 12 + rouge / 3 + cider / 30])
    expected = np.sqrt((n - 1) * np.var(without, axis=0))
    found = [estimates[key].flat(key)[f"{key}_stderr"] for key in KEYS]
    assert found == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-12)
    assert all(estimates[key].flat(key)[f"{key}_n"] == n for key in KEYS)


@given(pairs)
@settings(max_examples=60)
def test_values_follow_the_formulas(plain, drawn):
    """BLEU and ROUGE-L from their definitions, without the library."""
    found = {key: estimate.value for key, estimate in plain(*zip(*drawn, strict=True)).items()}
    split = [(prediction.split(), reference.split()) for prediction, reference in drawn]
    lengths = np.array([[len(p), len(r)] for p, r in split]).sum(axis=0)
    precision = []
    for n in range(1, 5):
        grams = [[Counter(zip(*(words[k:] for k in range(n)), strict=False)) for words in pair] for pair in split]
        hits, total = sum((p & r).total() for p, r in grams), sum(p.total() for p, _ in grams)
        if not hits:
            break
        precision.append(hits / total)
        brevity = min(1, math.exp(1 - lengths[1] / lengths[0]))
        assert found[f"bleu_{n}"] == pytest.approx(brevity * math.prod(precision) ** (1 / n), rel=1e-6)
    assert found["rouge_l"] == pytest.approx(np.mean([rouge_l(*pair) for pair in split]))


def rouge_l(prediction, reference):
    if not prediction and not reference:
        return 1.0  # COCO splits an empty caption into one empty word
    common = [[0] * (len(reference) + 1) for _ in range(len(prediction) + 1)]
    for i, word in enumerate(prediction):
        for j, other in enumerate(reference):
            common[i + 1][j + 1] = common[i][j] + 1 if word == other else max(common[i][j + 1], common[i + 1][j])
    if not common[-1][-1]:
        return 0.0
    precision, recall = common[-1][-1] / len(prediction), common[-1][-1] / len(reference)
    return (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=4).map(" ".join), min_size=1, max_size=6))
def test_a_perfect_copy_scores_one(plain, references):
    found = {key: estimate.value for key, estimate in plain(references, references).items()}
    assert [found[key] for key in KEYS[:5]] == pytest.approx([1] * 5, abs=1e-6)
    assert 0 <= found["cider"] <= 10 + 1e-9


@pytest.mark.parametrize("references", [["", ""], ["?", "."]])
def test_references_without_a_word_score_nothing(references, without_java):
    found = values(["a car", "a van"], references)
    assert found["cider"] == 0 and found["bleu_4"] < 1e-6


def test_without_java_it_says_so_once_in_the_log_and_in_the_result(without_java, caplog):
    with caplog.at_level(logging.WARNING):
        scores = score_captions(PREDICTIONS, REFERENCES)
    assert scores.tokenizer == "regex"
    (record,) = caplog.records
    assert "no java on PATH" in record.message


@needs_java
def test_with_java_it_says_so(caplog):
    assert score_captions(PREDICTIONS, REFERENCES).tokenizer == "java"
    assert not caplog.records


@pytest.mark.parametrize(
    "java, reason",
    [
        ("#!/bin/sh\necho no runtime >&2; echo install one >&2; exit 1", "exit code 1, no runtime"),
        ("#!/bin/sh\nexit 3", "exit code 3, "),
        ("#!/bin/sh\necho two lines", "2 lines for 1 captions"),
        ("\x7fELF", ".*Exec format error.*"),
    ],
)
def test_a_broken_java_is_an_input_error_of_one_line(tmp_path, monkeypatch, java, reason):
    program = tmp_path / "java"
    program.write_text(java)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        InputError, match=f"^the tokenizer failed: {reason}; repair `java` or take it off PATH"
    ) as error:
        score_captions(["a car"], ["a van"])
    assert "\n" not in str(error.value)


@needs_java
def test_tokenizing_writes_nothing_to_stderr_or_to_the_package(capfd):
    folder = Path(ptbtokenizer.__file__).parent
    before = folder.stat().st_mtime_ns
    tokenize_java(PREDICTIONS)
    assert capfd.readouterr() == ("", "")
    assert folder.stat().st_mtime_ns == before
