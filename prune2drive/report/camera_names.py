"""Finds which cameras a text is about."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from prune2drive.cameras import camera_of, spoken_name


class CameraNames:
    """Knows the names of cameras, also as texts speak of them: `the front left`, `back camera`.

    A camera that is shown at several times is meant with all its views.

    Args:
        cameras: their names.
    """

    def __init__(self, cameras: Sequence[str]) -> None:
        exact: dict[str, set[int]] = defaultdict(set)
        spoken: dict[str, set[int]] = defaultdict(set)
        for number, camera in enumerate(cameras):
            for name in (camera, camera_of(camera)):
                exact[name.casefold()].add(number)
            spoken[spoken_name(camera_of(camera)).casefold()].add(number)
        self._exact, self._spoken = dict(exact), dict(spoken)
        self._pattern = re.compile(
            rf"(?<!\w)(?:(?P<exact>{_any(exact)})|(?:the )(?P<after>{_any(spoken)})|(?P<before>{_any(spoken)})"
            rf"(?= (?:camera|view|image)))(?!\w)",
            re.IGNORECASE,
        )

    def mentioned(self, text: str) -> list[int]:
        """Returns the numbers of the cameras that a text names, ascending."""
        found: set[int] = set()
        for match in self._pattern.finditer(text):
            if exact := match["exact"]:
                found |= self._exact.get(exact.casefold(), set())
            elif spoken := match["after"] or match["before"]:
                found |= self._spoken.get(spoken.casefold(), set())
        return sorted(found)


def _any(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
