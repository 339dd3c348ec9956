"""Keeps, beside the rows of a run, what it takes to draw the kept tokens: `selections.jsonl`.

A line has a question's `id`; its `grids`, camera -> the views of the camera's tokens as [rows, columns, x0, y0, x1, y1]
and, where the tokens are not those views in raster order, the cell of each; its `objects` as [camera, x0, y0, x1, y1,
label]; and, where the method has one, the `order` in which each camera's tokens were picked, packed by `pack_order`.
Rectangles are in units of the image.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prune2drive.errors import InputError
from prune2drive.files import UNENCODABLE
from prune2drive.sample import Sample
from prune2drive.token_map import TokenMap

SELECTIONS = "selections.jsonl"
Selection = dict[str, Any]


class Selections:
    """Appends to a run folder's selections, up to a number of them, and reads them.

    Every rank appends to a file of its own.

    Args:
        folder: the run folder.
        limit: how many to append at most, those of an earlier process included.
        rank: rank of this process.
    """

    def __init__(self, folder: Path, limit: int = 0, rank: int = 0) -> None:
        self.folder = folder
        self.file = folder / (SELECTIONS if rank == 0 else f"selections.rank{rank}.jsonl")
        self.left = limit - sum(1 for _ in _read(self.file)) if limit and self.file.exists() else limit

    def append(self, selections: Sequence[Selection]) -> None:
        """Appends selections.

        Raises:
            InputError: the file cannot be written.
        """
        if not selections:
            return
        lines = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in selections)
        try:
            with self.file.open("ab+") as file:
                if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":  # a kill tore the line before
                    file.write(b"\n")
                file.write(lines.encode(errors=UNENCODABLE))
        except OSError as error:
            raise InputError(
                f"{self.file}: cannot be written ({error.strerror}); free space, or use explorer=0"
            ) from error
        self.left -= len(selections)

    def __iter__(self) -> Iterator[Selection]:
        """Yields the selections of all ranks; of a question that was asked again, the latest is the last."""
        for file in sorted(self.folder.glob("selections*.jsonl")):
            yield from _read(file)


def _read(file: Path) -> Iterator[Selection]:
    """Yields a file's lines, without those that a kill tore."""
    with file.open("rb") as lines:
        for line in lines:
            try:
                selection = json.loads(line)
            except ValueError:
                continue
            if isinstance(selection, dict) and "id" in selection:
                yield selection


def selection_of(sample: Sample, token_map: TokenMap, picked: Mapping[str, Tensor]) -> Selection:
    """Returns the selection of a sample.

    Args:
        sample: the sample; its images are not needed.
        token_map: the map of its prompt.
        picked: camera -> kept indices within the camera, in the order in which they were picked.
    """
    selection: Selection = {
        "id": sample.id,
        "grids": {camera: _grid(token_map, camera) for camera in token_map.cameras},
        "objects": [
            [thing.camera, *_relative(thing.box, sample.image_sizes[thing.camera]), thing.label]
            for thing in sample.objects
            if thing.camera in token_map.cameras and thing.camera in sample.image_sizes
        ],
    }
    if any((indices.diff() < 0).any() for indices in picked.values()):
        selection["order"] = {camera: pack_order(indices) for camera, indices in picked.items()}
    return selection


def _grid(token_map: TokenMap, camera: str) -> list[Any]:
    """Returns the views of a camera and, where its tokens are not theirs in raster order, the cell of each token."""
    mine = [number for number, view in enumerate(token_map.views) if view.camera == camera]
    views = [token_map.views[number] for number in mine]
    starts = accumulate((view.rows * view.cols for view in views[:-1]), initial=0)
    start_V, cols_V = torch.zeros(len(token_map.views), dtype=torch.long), torch.ones(len(token_map.views)).long()
    start_V[mine], cols_V[mine] = torch.tensor(list(starts)), torch.tensor([view.cols for view in views])
    at_N = token_map.positions(camera)
    view_N = token_map.view_P[at_N]
    cell_N = start_V[view_N] + token_map.row_P[at_N] * cols_V[view_N] + token_map.col_P[at_N]
    shown = [[view.rows, view.cols, *(round(edge, 5) for edge in view.frame)] for view in views]
    return [shown] if torch.equal(cell_N, torch.arange(len(cell_N))) else [shown, cell_N.tolist()]


def _relative(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    return [round(edge / length, 4) for edge, length in zip(box, size * 2, strict=True)]


def pack_order(indices: Tensor) -> str:
    """Packs indices below 65,536, in their order, as base64 of two bytes each, the low one first."""
    return base64.b64encode(indices.cpu().numpy().astype("<u2").tobytes()).decode()


def unpack_order(packed: str) -> list[int]:
    """Returns the indices that `pack_order` packed."""
    return np.frombuffer(base64.b64decode(packed), dtype="<u2").tolist()
