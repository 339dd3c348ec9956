"""Batches that find no memory."""

import logging

import pytest
from helpers import runs

from prune2drive.errors import InputError
from prune2drive.models.adapter import Adapter

pytestmark = pytest.mark.slow  # whole runs


def room_for(questions, monkeypatch):
    """Lets batches of more questions run out of memory; returns the sizes of those that were answered."""
    generate, sizes = Adapter.generate, []

    def small(self, prompts, *reading, **options):
        if len(prompts.lengths) > questions:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.")
        sizes.append(len(prompts.lengths))
        return generate(self, prompts, *reading, **options)

    monkeypatch.setattr(Adapter, "generate", small)
    return sizes


def test_auto_halves_until_batches_fit_and_loses_nothing(tmp_path, monkeypatch, caplog):
    runs.run(tmp_path / "whole", "dataset.size=12", "batch_size=3", "ratios.keep=0.2")
    sizes = room_for(3, monkeypatch)
    with caplog.at_level(logging.WARNING):
        runs.run(tmp_path / "auto", "dataset.size=12", "batch_size=auto", "ratios.keep=0.2")
    said = [message for message in caplog.messages if "memory" in message]
    assert said == [
        "no memory for 12 questions at once: going on with batches of 6",
        "no memory for 6 questions at once: going on with batches of 3",
    ]
    assert sizes == [3] * 4
    rows, expected = runs.rows(tmp_path / "auto"), runs.rows(tmp_path / "whole")
    assert [(row.id, row.answer, row.kept) for row in rows] == [(row.id, row.answer, row.kept) for row in expected]


@pytest.mark.parametrize(
    ("size", "advice"),
    [(8, "no memory for 8 questions at once: set batch_size=4, or batch_size=auto"), (1, "a single question")],
)
def test_no_memory_is_one_line(tmp_path, monkeypatch, size, advice):
    room_for(0, monkeypatch)
    with pytest.raises(InputError, match="^no memory for [^\n]*$") as caught:
        runs.run(tmp_path, f"batch_size={size}")
    assert advice in str(caught.value)


def test_other_errors_are_not_taken_for_it(tmp_path, monkeypatch):
    def broken(self, prompts, *reading, **options):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Adapter, "generate", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        runs.run(tmp_path, "batch_size=auto")


@pytest.mark.parametrize("size", ["0", "true", "many", "2.5"])
def test_sizes_that_are_none_are_refused(tmp_path, size):
    with pytest.raises(InputError, match="^batch_size=.*, or auto$"):
        runs.run(tmp_path, f"batch_size={size}")
