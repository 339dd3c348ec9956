"""Which questions of a file are asked: those of some scenes, then a slice of them or a random sample."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from prune2drive.errors import InputError

log = logging.getLogger(__name__)

SHARES = {"search": 0.5, "val": 0.25, "test": 0.25}


@dataclass(frozen=True)
class Subset:
    """A part of a question file, in the file's order; all of it by default.

    Args:
        scenes: only these scenes: their tokens, or a file with one a line.
        split: only the scenes of this part of `shares`. A scene's part depends on its token and `split_seed` alone,
            so that scenes added later move none, and a search never sees a scene of the test.
        shares: part -> its share of the scenes.
        split_seed: of the parting. It is not the run's seed: runs that differ in that must agree on the test.
        slice: [start, stop) of what is left; the original evaluates on `[500, 1000]`.
        sample: that many at random of what is left.
        seed: of the sample.

    Raises:
        InputError: values that no file can meet.
    """

    scenes: Sequence[str] | str | Path | None = None
    split: str | None = None
    shares: Mapping[str, float] | None = None
    split_seed: int = 0
    slice: Sequence[int | None] | None = None
    sample: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        shares = dict(SHARES if self.shares is None else self.shares)
        if not all(isinstance(share, int | float) and share >= 0 for share in shares.values()):
            raise InputError(f"dataset.shares={shares}: shares are numbers of 0 or more")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise InputError(f"dataset.shares={shares}: they sum to {sum(shares.values()):g}; make that 1")
        if self.split is not None and self.split not in shares:
            raise InputError(f"dataset.split={self.split}: choose from {', '.join(shares)}, or change dataset.shares")
        if self.slice is not None and self.sample is not None:
            raise InputError("dataset.slice and dataset.sample are both set: leave one of them null")
        if self.slice is not None and (not isinstance(self.slice, Sequence) or len(self.slice) != 2):
            raise InputError(f"dataset.slice={self.slice}: give two numbers, e.g. [500,1000]")
        object.__setattr__(self, "shares", shares)

    def choose(self, scenes: Sequence[str], file: Path) -> list[int]:
        """The places of the chosen questions, ascending.

        Args:
            scenes: the scene of every question in the file.
            file: what they are in, for messages and as the folder that `scenes` is relative to.

        Raises:
            InputError: nothing would be left, or the file has too few questions.
        """
        left = list(range(len(scenes)))
        if self.scenes is not None:
            wanted = self._listed(file)
            if absent := wanted - set(scenes):
                log.warning("%d of %d scenes of dataset.scenes are not in %s", len(absent), len(wanted), file)
            left = [place for place in left if scenes[place] in wanted]
        if self.split is not None:
            if not all(scenes):
                raise InputError(f"{file}: a question names no scene, so dataset.split={self.split} cannot place it")
            parts = {scene: self.part(scene) for scene in dict.fromkeys(scenes)}
            left = [place for place in left if parts[scenes[place]] == self.split]
        if not left:
            raise InputError(f"{file}: no question is in dataset.scenes and dataset.split={self.split}; widen them")
        return self._cut(left, file)

    def part(self, scene: str) -> str:
        """The part of `shares` that a scene belongs to."""
        assert self.shares is not None
        digest = hashlib.sha256(f"{self.split_seed}/{scene}".encode()).digest()
        point = int.from_bytes(digest[:7], "big") / 2**56
        bounds = zip(self.shares, accumulate(self.shares.values()), strict=True)
        filled = [(name, bound) for name, bound in bounds if self.shares[name] > 0]
        return next((name for name, bound in filled if point < bound), filled[-1][0])

    def _listed(self, file: Path) -> set[str]:
        if not isinstance(self.scenes, str | Path):
            return set(map(str, self.scenes or ()))
        path = file.parent / Path(self.scenes).expanduser()
        try:
            return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"dataset.scenes={path}: cannot be read ({error}); give one scene token a line") from None

    def _cut(self, left: list[int], file: Path) -> list[int]:
        total = len(left)
        if self.slice is not None:
            start, stop = (
                bound if bound is not None else end for bound, end in zip(self.slice, (0, total), strict=True)
            )
            if not (isinstance(start, int) and isinstance(stop, int) and 0 <= start < stop <= total):
                raise InputError(f"dataset.slice={list(self.slice)}: {file} has {total} questions; choose within them")
            return left[start:stop]
        if self.sample is not None:
            return drawn(left, self.sample, self.seed, file)
        return left


def drawn(places: Sequence[int], sample: int, seed: int, source: Path | str) -> list[int]:
    """That many of these places at random, ascending, so that the questions of a scene stay neighbours.

    Args:
        source: what has the questions, for the message.

    Raises:
        InputError: it has fewer.
    """
    total = len(places)
    if not (isinstance(sample, int) and 0 < sample <= total):
        raise InputError(f"dataset.sample={sample}: {source} has {total} questions; choose from 1 to {total}")
    return sorted(random.Random(seed).sample(places, sample))
