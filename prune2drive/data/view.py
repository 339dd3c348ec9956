"""Shows some questions of a dataset as a dataset of their own."""

from __future__ import annotations

from collections.abc import Sequence

from prune2drive.data.dataset import Dataset, fingerprint
from prune2drive.sample import Prediction, Sample


class DatasetView:
    """Shows some questions of a dataset; a `prune2drive.data.dataset.Dataset`.

    Args:
        whole: the dataset.
        places: indices of the questions to show, ascending.
    """

    def __init__(self, whole: Dataset, places: Sequence[int]) -> None:
        self.whole, self._places = whole, places
        self.ids: Sequence[str] = [whole.ids[place] for place in places]

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.whole.cameras

    @property
    def fingerprint(self) -> str:
        return fingerprint([(self.whole.fingerprint, *self.ids)])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        return self.whole[self._places[index]]

    def question(self, index: int) -> str:
        return self.whole.question(self._places[index])

    def row(self, index: int) -> Prediction:
        return self.whole.row(self._places[index])

    def frame(self, index: int) -> str:
        return self.whole.frame(self._places[index])

    def check(self) -> None:
        self.whole.check()
