"""What W&B keeps offline, read back from the files that `wandb sync` uploads."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # checksum, length, kind: as in a LevelDB log
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    content = file.read_bytes()
    assert content.startswith(b":W&B")
    at, parts = 7, b""
    while at + HEADER.size <= len(content):
        if BLOCK - at % BLOCK < HEADER.size:  # no header begins in a block's last bytes
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, at)
        at += HEADER.size
        parts = content[at : at + length] if kind in (FULL, FIRST) else parts + content[at : at + length]
        at += length
        if kind in (FULL, LAST):
            yield wandb_internal_pb2.Record.FromString(parts)


def update(shown: dict, items) -> None:
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = shown
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)


def read(folder: Path) -> SimpleNamespace:
    """The one W&B run of a run folder."""
    (file,) = folder.rglob("*.wandb")
    return read_file(file)


def read_file(file: Path) -> SimpleNamespace:
    """A W&B run: `steps` are what was logged, one after the other, and `history` the last of each name.

    `artifacts` has the names of the files of each type of artifact.
    """
    found = SimpleNamespace(run=None, config={}, history={}, steps=[], summary={}, artifacts={}, exit_code=None)
    found.files = file.parent / "files"
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found.run = record.run
            update(found.config, record.run.config.update)
        elif kind == "config":
            update(found.config, record.config.update)
        elif kind == "history":
            update(found.history, record.history.item)
            found.steps.append({})
            update(found.steps[-1], record.history.item)
        elif kind == "summary":
            update(found.summary, record.summary.update)
        elif kind == "artifact":
            names = {entry.path for entry in record.artifact.manifest.contents}
            found.artifacts.setdefault(record.artifact.type, set()).update(names)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found
