"""Keeps pruned prompts as embeddings: a safetensors file for each question, and `prompts.jsonl`, which lists them.

A file has `prompt_embeds` [T, D], what the decoder's first layer is given, in the model's number format, and
`kept_positions` [T], the place that each of them had in the prompt with all tokens.

Shape suffixes: T positions of the pruned prompt, D channels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.files import replace_atomically, write_atomically
from prune2drive.results.id_index import IdIndex
from prune2drive.sample import Prediction

MANIFEST = "prompts.jsonl"
FOLDER = "embeddings"


class ExportedPrompts:
    """The exported prompts of a run folder.

    Args:
        folder: the run folder.
        ids: all ids of questions, in the dataset's order; a file's name is a question's place among them.

    Raises:
        InputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        self.folder, self.index = folder, IdIndex(ids)
        try:
            (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder / FOLDER}: cannot be made ({error.strerror}); choose another folder") from error

    def write(self, name: str, embeddings_TD: Tensor, positions_T: Tensor) -> None:
        """Writes the prompt of a question, whole or not at all.

        Args:
            name: the question's id.
            embeddings_TD: embeddings of the pruned prompt.
            positions_T: place of each of them in the prompt with all tokens.

        Raises:
            InputError: the folder cannot be written.
        """
        tensors = {"prompt_embeds": embeddings_TD, "kept_positions": positions_T}
        content = save({key: value.cpu().contiguous() for key, value in tensors.items()})
        replace_atomically(self.folder / self._file(name), lambda draft: draft.write_bytes(content))

    def write_manifest(self, rows: Iterable[Prediction]) -> None:
        """Lists the prompts of all questions that did not fail, in the order of the rows.

        Raises:
            InputError: the folder cannot be written.
        """

        def lines() -> Iterator[str]:
            for row in rows:
                if row.error is None:
                    entry = {
                        "id": row.id,
                        "question": row.question,
                        "reference": row.reference,
                        "answer": row.answer,
                        "file": self._file(row.id),
                        "tokens": row.text_tokens + sum(row.kept_counts.values()),
                        "kept": row.kept_counts,
                    }
                    yield json.dumps(entry, ensure_ascii=False) + "\n"

        write_atomically(self.folder / MANIFEST, lines())

    def _file(self, name: str) -> str:
        """Returns the file of a question, relative to the run folder."""
        return f"{FOLDER}/{self.index.place(name):06d}.safetensors"
