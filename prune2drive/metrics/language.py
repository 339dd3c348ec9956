"""COCO's caption metrics as DriveLM scores them: BLEU 1-4, ROUGE-L and CIDEr behind the Penn Treebank tokenizer.

The scorers and the Java tokenizer are pycocoevalcap's (Chen et al., Microsoft COCO Captions, arXiv 1504.00325). Every
value has a jackknife standard error: the statistic is recomputed without each of the samples.

Shape suffixes: N samples, S sums that BLEU is made of.
"""

from __future__ import annotations

import logging
import math
import re
import shutil
import subprocess
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocoevalcap.bleu.bleu_scorer import precook
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer import ptbtokenizer

from prune2drive.errors import InputError
from prune2drive.metrics.cider import Cider
from prune2drive.metrics.lines import Lines, split_lines
from prune2drive.metrics.statistics import Estimate, combine, jackknife, mean

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]

BLOCK = 4096  # captions in memory
LANGUAGE_WEIGHTS = {**{f"bleu_{n}": 1 / 12 for n in range(1, 5)}, "rouge_l": 1 / 3, "cider": 1 / 30}


@dataclass(frozen=True)
class LanguageScores:
    """COCO's metrics of a set of captions.

    Args:
        estimates: `bleu_1` .. `bleu_4`, `rouge_l`, `language` in [0, 1] and `cider` in [0, 10].
        tokenizer: "java" (the official values) or "regex" (close to them, where there is no Java).
    """

    estimates: dict[str, Estimate]
    tokenizer: str


def score_captions(
    predictions: Iterable[str], references: Iterable[str], samples: Sequence[int] | None = None
) -> LanguageScores:
    """Returns BLEU 1-4, ROUGE-L, CIDEr and `language` = mean(BLEU 1-4) / 3 + ROUGE-L / 3 + CIDEr / 30.

    The order of the captions matters in rare cases, as `tokenize_java` explains. The standard error of CIDEr treats
    the document frequencies of the references as fixed.

    Args:
        predictions: at least one caption.
        references: the reference of every prediction.
        samples: the number of every sample in the estimates; by default its position.

    Raises:
        InputError: Java is installed but does not run.
    """
    tokenizer = "java" if shutil.which("java") else "regex"
    if tokenizer == "regex":
        logger.warning("no java on PATH: BLEU, ROUGE-L and CIDEr come from a regex tokenizer close to the official one")
    tokenize = tokenize_java if tokenizer == "java" else tokenize_regex
    with ThreadPoolExecutor(2) as pool:  # Java takes longer to start than to read them
        tokenized = list(pool.map(tokenize, (predictions, references)))
    sums, rouge, cider, scorer = array("q"), array("d"), Cider(), Rouge()
    for prediction, reference in zip(*tokenized, strict=True):
        (length, found), (reference_length, asked) = precook(prediction), precook(reference)
        guesses = [max(0, length - n) for n in range(4)]
        matches = [0] * 4
        for ngram, count in found.items():
            matches[len(ngram) - 1] += min(count, asked.get(ngram, 0))
        sums.extend([length, reference_length, *guesses, *matches])
        rouge.append(scorer.calc_score([prediction], [reference]))
        cider.add(found, asked)
    number_N = np.arange(len(rouge)) if samples is None else np.asarray(samples)
    estimates = {"cider": mean(cider.scores(), number_N), "rouge_l": mean(np.array(rouge), number_N)}
    estimates |= _bleu(np.frombuffer(sums, dtype=np.int64).reshape(-1, 10), number_N)
    estimates = {key: estimates[key] for key in LANGUAGE_WEIGHTS}
    estimates["language"] = combine(estimates, LANGUAGE_WEIGHTS)
    return LanguageScores(estimates, tokenizer)


def _bleu(sums_NS: NDArray[np.int64], samples: NDArray[np.int64]) -> dict[str, Estimate]:
    total_S = sums_NS.sum(axis=0)
    blocks = np.array_split(sums_NS, len(sums_NS) // BLOCK + 1)
    without_N4 = np.concatenate([_bleu_of_sums(total_S - block_NS) for block_NS in blocks])
    values = _official_bleu([int(each) for each in total_S])
    return {f"bleu_{n + 1}": jackknife(values[n], without_N4[:, n], samples) for n in range(4)}


def _official_bleu(sums: Sequence[int]) -> list[float]:
    """Returns BLEU 1-4 from the corpus's sums by COCO's own steps: equal to the last bit."""
    length, reference_length, *counts = sums
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    values, product = [], 1.0
    for n, (guesses, matches) in enumerate(zip(counts[:4], counts[4:], strict=True), start=1):
        product *= (matches + 1e-15) / (guesses + 1e-9)
        values.append(product ** (1 / n) * penalty)
    return values


def _bleu_of_sums(sums_NS: NDArray[np.int64]) -> Floats:
    """Returns BLEU 1-4 from lengths (prediction, reference), n-grams and matching n-grams, with COCO's epsilons."""
    length, reference_length, guesses, matches = np.split(sums_NS.astype(float), [1, 2, 6], axis=1)
    precision = np.cumprod((matches + 1e-15) / (guesses + 1e-9), axis=1) ** (1 / np.arange(1, 5))
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    bleu_N4: Floats = precision * np.exp(np.minimum(0, 1 - 1 / ratio))
    return bleu_N4


def tokenize_java(captions: Iterable[str]) -> Lines:
    """Returns captions as pycocoevalcap's PTBTokenizer does: lower case, without punctuation, joined by spaces.

    The tokenizer reads the captions as one text and looks past the end of a line: `B.` at the end of a caption
    loses its period where the next one starts with, say, `The`. So captions are only comparable in the official
    order. Line breaks within a caption become spaces.

    Raises:
        InputError: Java does not run.
    """
    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = captions if isinstance(captions, Lines) else Lines(captions)
    lines.file.seek(0)
    tokenized = Lines()
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(command, stdin=lines.file, stdout=output, stderr=subprocess.PIPE)
            message = done.stderr.decode(errors="replace").strip()
            failure = f"exit code {done.returncode}, {message}" if done.returncode else ""
        except OSError as error:
            failure = str(error)
        for line in split_lines(output):
            tokenized.append(" ".join(w for w in line.rstrip().split(" ") if w not in ptbtokenizer.PUNCTUATIONS))
    if failure or len(tokenized) != len(lines):
        reason = failure.partition("\n")[0] or f"{len(tokenized)} lines for {len(lines)} captions"
        raise InputError(f"the tokenizer failed: {reason}; repair `java` or take it off PATH to do without")
    return tokenized


def tokenize_regex(captions: Iterable[str]) -> Lines:
    """Returns what `tokenize_java` does, without Java, as far as driving captions need it.

    A port of the tokenizer's behaviour, not of its grammar: it agrees on every question and answer of DriveLM's
    sample (asserted in the tests) and differs where sentences run into each other, and on web addresses, file
    names and symbols.
    """
    lines = iter(captions if isinstance(captions, Lines) else Lines(captions))
    tokenized = Lines()
    block, after = list(islice(lines, BLOCK)), list(islice(lines, BLOCK))
    while block:
        words = next((number for number, line in enumerate(after) if line.strip()), len(after))
        seen = [*block, *after[: words + 1], ""]  # a period's fate depends on the next line that has words
        for line in _tokenized("\n".join(seen))[: len(block)]:
            tokenized.append(line)
        block, after = after, list(islice(lines, BLOCK))
    return tokenized


def _tokenized(text: str) -> list[str]:
    """Returns the lines of a text, tokenized."""
    lines: list[list[str]] = [[]]
    for token in _PTB.findall(text.translate(_ASCII)):
        if token == "\n":
            lines.append([])
        elif not _PUNCTUATION.fullmatch(token):
            lines[-1].append(re.sub(r"[][(){}]", lambda bracket: _BRACKETS[bracket[0]], token.lower()))
    return [" ".join(line) for line in lines]


_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_ASCII = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "«": '"', "»": '"', "–": "--", "—": "--", "…": "...", "€": "$", "£": "#"}
    | {"\u00ad": "", "\u200b": " ", "\ufeff": " "}
)
_PUNCTUATION = re.compile(r"['\"`.,:;?!]|-+|\.{3,}")  # what pycocoevalcap drops

# After a single letter and a period these start a sentence, so that the period is no part of an abbreviation.
_STARTERS = """A About According Additionally After An As At But He Her Here However If In It Last Many More Now Once
    One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You"""
_ABBREVIATIONS = """al ave bros blvd cf co corp ct dept dr est etc ft gen gov inc jr ltd mr mrs ms mt prof rd rev sgt sq
    sr st vs jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri"""
_PTB = re.compile(
    rf"""\n
    | </?[a-z][\w:.-]*(?:[ ]+[\w:.-]+(?:[ ]*=[ ]*(?:"[^"\n]*"|'[^'\n]*'))?)*[ ]*/?>  # <image>, not <c1,CAM_BACK,1.5>
    | https?://[^\s<>"]+ | \w[\w.+-]*@[\w-]+(?:\.[\w-]+)*
    | can(?=not\b) | (?:gon|wan)(?=na\b) | got(?=ta\b) | (?:lem|gim)(?=me\b) | 't(?=(?:is|was)\b)
    | n't\b | '(?:s|m|d|ll|re|ve)\b | '\d0s\b | [^\W\d_]+?(?=n't\b)                   # do n't, it 's, the '90s
    | (?:[a-z]\.){{2,}}(?![^\W_]) | (?:{"|".join(_ABBREVIATIONS.split())})\.(?![^\W_]) | no\.(?=\s?\d)
    | [a-z]\.(?!\w|\s+(?-i:{"|".join(_STARTERS.split())})\s)                          # the choices A. to D.
    | [a-z][a-z0-9]*(?:[.!?][a-z][a-z0-9]*)+(?:-[^\W_]+)*                             # ahead.The: taken for a host name
    | [^\W_]+(?:[-_][^\W_]+)*\.(?=[,;:])
    | [od]'[a-z]+ | (?-i:[A-Z]+&[A-Z]+)
    | \d+\.\d*-\d+ | [-+]?\d*(?:[.,:]\d+)+                                            # ,1088.3,497.5
    | [^\W_]+(?:-[^\W_]+)*(?:/[^\W_]+(?:-[^\W_]+)*){{1,2}} | [^\W_]+(?:[-_][^\W_]+)*  # km/h, left-hand, CAM_FRONT
    | [-+]\d+ | @[a-z_]+ | \#[a-z]+ | [:;=]-?[()DP](?!\w)
    | --+ | \.\.\.+ | [?!]+ | \*+ | _+ | \#+ | << | >> | [^\s\U00010000-\U0010ffff]""",
    re.IGNORECASE | re.VERBOSE,
)
