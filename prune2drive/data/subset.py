"""Chooses the questions to ask from a file: by scene, then by a slice or at random."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

from prune2drive.errors import InputError

log = logging.getLogger(__name__)

FRACTIONS = {"search": 0.5, "val": 0.25, "test": 0.25}


@dataclass(frozen=True)
class Subset:
    """A choice of questions, in the file's order; all questions by default.

    Args:
        scenes: tokens of the scenes to ask about, or a file with one token a line.
        split: name of the split to ask about. A scene's split depends on its token and `split_seed` alone, so that
            new scenes move no other scene, and a search never sees a scene of the test split.
        split_fractions: split -> fraction of the scenes.
        split_seed: seed of the division into splits, separate from the run's seed since all runs must agree on it.
        slice: [start, stop) among the questions of the chosen scenes; Prune2Drive evaluates on `[500, 1000]`.
        sample: number of questions to draw at random from the chosen scenes.
        frames: number of frames to draw at random from the chosen scenes, with all of their questions. What the
            questions about a frame have in common is computed once, so that these cost less than as many of a sample.
        seed: seed of the random draw.

    Raises:
        InputError: an option has a value that fits no file.
    """

    scenes: Sequence[str] | str | Path | None = None
    split: str | None = None
    split_fractions: Mapping[str, float] | None = None
    split_seed: int = 0
    slice: Sequence[int | None] | None = None
    sample: int | None = None
    frames: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        fractions = dict(FRACTIONS if self.split_fractions is None else self.split_fractions)
        option, values = f"dataset.split_fractions={fractions}", fractions.values()
        if not all(isinstance(fraction, int | float) and fraction >= 0 for fraction in values):
            raise InputError(f"{option}: fractions are numbers of 0 or more")
        if abs(sum(values) - 1) > 1e-6:
            raise InputError(f"{option}: they sum to {sum(values):g}; make that 1")
        if self.split is not None and self.split not in fractions:
            choices = ", ".join(fractions)
            raise InputError(f"dataset.split={self.split}: choose from {choices}, or change dataset.split_fractions")
        cuts = [f"dataset.{name}" for name in ("slice", "sample", "frames") if getattr(self, name) is not None]
        if len(cuts) > 1:
            raise InputError(f"{' and '.join(cuts)} are both set: leave one of them null")
        if self.slice is not None and (not isinstance(self.slice, Sequence) or len(self.slice) != 2):
            raise InputError(f"dataset.slice={self.slice}: give two numbers, e.g. [500,1000]")
        object.__setattr__(self, "split_fractions", fractions)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Subset:
        """Makes a subset of a dataset's remaining options.

        Raises:
            InputError: an option does not exist, or has a value that fits no file.
        """
        known = [option.name for option in fields(cls)]
        if unknown := [name for name in options if name not in known]:
            raise InputError(f"dataset.{unknown[0]}: no such option; questions are chosen by {', '.join(known)}")
        return cls(**options)

    def choose(self, scenes: Sequence[str], file: Path, frames: Sequence[Hashable] | None = None) -> list[int]:
        """Returns the indices of the chosen questions, ascending.

        Args:
            scenes: the scene of every question in the file.
            file: the question file, for messages and as the place of a relative file of scenes.
            frames: the frame of every question in the file; by default each has one of its own.

        Raises:
            InputError: no question is chosen, or the file has too few questions.
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
        return self._cut(left, file, range(len(scenes)) if frames is None else frames)

    def part(self, scene: str) -> str:
        """Returns the split that a scene belongs to."""
        assert self.split_fractions is not None
        digest = hashlib.sha256(f"{self.split_seed}/{scene}".encode()).digest()
        point = int.from_bytes(digest[:7], "big") / 2**56
        bounds = zip(self.split_fractions, accumulate(self.split_fractions.values()), strict=True)
        filled = [(name, bound) for name, bound in bounds if self.split_fractions[name] > 0]
        return next((name for name, bound in filled if point < bound), filled[-1][0])

    def _listed(self, file: Path) -> set[str]:
        if not isinstance(self.scenes, str | Path):
            return set(map(str, self.scenes or ()))
        path = file.parent / Path(self.scenes).expanduser()
        try:
            return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"dataset.scenes={path}: cannot be read ({error}); give one scene token a line") from None

    def _cut(self, left: list[int], file: Path, frames: Sequence[Hashable]) -> list[int]:
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
        if self.frames is not None:
            known = list(dict.fromkeys(frames[place] for place in left))
            asked = {known[at] for at in drawn(range(len(known)), self.frames, self.seed, file, "frames")}
            return [place for place in left if frames[place] in asked]
        return left


def drawn(places: Sequence[int], count: int, seed: int, source: Path | str, what: str = "sample") -> list[int]:
    """Draws indices at random and returns them ascending, so that the questions of a scene stay neighbours.

    Args:
        places: the indices to draw from.
        count: how many to draw.
        seed: seed of the draw.
        source: name of the questions' source, for the message.
        what: option of the dataset that asks for them: a `sample` of questions, or `frames`.

    Raises:
        InputError: there are fewer indices than are to be drawn.
    """
    total, drawable = len(places), "questions" if what == "sample" else what
    if not (isinstance(count, int) and 0 < count <= total):
        raise InputError(f"dataset.{what}={count}: {source} has {total} {drawable}; choose from 1 to {total}")
    return sorted(random.Random(seed).sample(places, count))
