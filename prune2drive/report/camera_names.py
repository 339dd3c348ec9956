"""Finds which cameras a text is about."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prune2drive.cameras import spoken_name


class CameraNames:
    """Knows the names of cameras, also as texts speak of them: `the front left`, `back camera`.

    Args:
        cameras: their names.
    """

    def __init__(self, cameras: Sequence[str]) -> None:
        spoken = {spoken_name(camera): number for number, camera in enumerate(cameras)}
        self._exact = {camera: number for number, camera in enumerate(cameras)}
        self._spoken = spoken
        self._pattern = re.compile(
            rf"(?<!\w)(?:(?P<exact>{_any(cameras)})|(?:the )(?P<after>{_any(spoken)})|(?P<before>{_any(spoken)})"
            rf"(?= (?:camera|view|image)))(?!\w)",
            re.IGNORECASE,
        )

    def mentioned(self, text: str) -> list[int]:
        """Returns the numbers of the cameras that a text names, ascending."""
        found = set()
        for match in self._pattern.finditer(text):
            if exact := match["exact"]:
                found |= {number for camera, number in self._exact.items() if camera.lower() == exact.lower()}
            elif spoken := match["after"] or match["before"]:
                found.add(self._spoken[spoken.lower()])
        return sorted(found)


def _any(names: Sequence[str] | dict[str, int]) -> str:
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
