"""CIDEr-D (Vedantam et al., arXiv 1411.5726) as pycocoevalcap computes it, with the n-grams on disk.

A caption's score needs the number of references that every n-gram occurs in, so all n-grams have to be seen before the
first caption is scored. They are kept in files, in buckets by their hash, and each bucket adds its share of every
caption's sums.

Shape suffixes: N captions, M n-grams of a bucket, 4 lengths of n-grams.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ngrams = Mapping[tuple[str, ...], int]

BUCKETS = 64
BUFFER = 1 << 15  # n-grams in memory
SPOOL = 1 << 14  # bytes of a bucket that need no file yet
SIGMA = 6.0  # of the penalty for other lengths
RECORD = np.dtype([("ngram", "<u8"), ("caption", "<u4"), ("length", "u1"), ("found", "<u2"), ("asked", "<u2")])
"""An n-gram's hash, its caption's number, its length - 1, and how often prediction and reference have it."""


class Cider:
    """Scores captions against one reference each."""

    def __init__(self) -> None:
        self._buffer: list[tuple[int, int, int, int, int]] = []
        self._files = [tempfile.SpooledTemporaryFile(SPOOL) for _ in range(BUCKETS)]
        self._deltas: list[int] = []

    def add(self, prediction: Ngrams, reference: Ngrams) -> None:
        """Adds a caption.

        Args:
            prediction: n-gram of 1 to 4 words -> how often the caption has it.
            reference: the same of its reference.
        """
        number = len(self._deltas)
        for ngram in {**prediction, **reference}:
            counts = prediction.get(ngram, 0), reference.get(ngram, 0)
            self._buffer.append((_hash(ngram), number, len(ngram) - 1, *counts))
        bigrams = [sum(count for ngram, count in each.items() if len(ngram) == 2) for each in (prediction, reference)]
        self._deltas.append(bigrams[0] - bigrams[1])  # the library's length is the number of bigrams
        if len(self._buffer) >= BUFFER:
            self._flush()

    def scores(self) -> Floats:
        """Returns the score of every caption in [0, 10]; [N]."""
        self._flush()
        count = len(self._deltas)
        products_N4, found_N4, asked_N4 = (np.zeros((count, 4)) for _ in range(3))
        for file in self._files:
            file.seek(0)
            records = np.frombuffer(file.read(), RECORD)
            _, ngram_M = np.unique(records["ngram"], return_inverse=True)
            documents = np.bincount(ngram_M, weights=records["asked"] > 0)
            idf_M = np.log(count) - np.log(np.maximum(documents, 1))[ngram_M]
            at = records["caption"], records["length"]
            found_M, asked_M = records["found"] * idf_M, records["asked"] * idf_M
            np.add.at(products_N4, at, np.minimum(found_M, asked_M) * asked_M)
            np.add.at(found_N4, at, found_M**2)
            np.add.at(asked_N4, at, asked_M**2)
        found_N4 *= asked_N4
        np.sqrt(found_N4, out=found_N4)
        np.divide(products_N4, found_N4, out=products_N4, where=found_N4 != 0)
        deltas_N = np.array(self._deltas, dtype=float)
        scores_N: Floats = 10 * products_N4.mean(axis=1) * np.exp(-(deltas_N**2) / (2 * SIGMA**2))
        return scores_N

    def _flush(self) -> None:
        """Moves the n-grams in memory to their files."""
        records = np.array(self._buffer, RECORD)
        self._buffer.clear()
        bucket = records["ngram"] % BUCKETS
        for number in np.unique(bucket):
            self._files[number].write(records[bucket == number].tobytes())


def _hash(ngram: tuple[str, ...]) -> int:
    """Returns a 64-bit hash, the same in every process: the order of sums, and so their last digits, depends on it."""
    value = 0
    for word in ngram:
        value = (value * 0x9E3779B97F4A7C15 + _hash_word(word)) & 0xFFFF_FFFF_FFFF_FFFF
    return value ^ (value >> 32)


@lru_cache(1 << 14)
def _hash_word(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(errors="replace"), digest_size=8).digest(), "little")
