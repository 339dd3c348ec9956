"""The loop of a run that has its prompts' prefixes in common with others in this process."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

from prune2drive.data.datamodule import Batch
from prune2drive.models.prompts import Answer
from prune2drive.pruning import Trace
from prune2drive.sample import Prediction
from prune2drive.tasks.loop import Evaluation
from prune2drive.tasks.prefix_session import Prefixes


class PrefixedEvaluation(Evaluation):
    """Answers with what earlier runs found; without seconds, of which those that are left would mislead.

    Where every question of a batch was answered before, these answers are checked instead of being said again.
    Questions whose answers change wait until they fill a batch, and are answered together.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.warm_up = 0  # nothing is timed
        self.waiting: list[tuple[Batch, Prediction]] = []

    @property
    def prefixes(self) -> Prefixes:
        assert self.parts.prefixes is not None
        return self.parts.prefixes

    def answer(self, batch: Batch) -> list[Prediction]:
        adapter, pruner = self.parts.adapter, self.parts.pruner
        drafts = self.prefixes.drafts(adapter, pruner, batch, self.generation)
        if drafts is None:
            answers, trace = self._generate_anew(batch)
            self.prefixes.keep(adapter, pruner, batch)
            return self._rows(batch, trace, answers)
        are_read = not pruner.sees_question  # behind a prompt a draft would be taken for a part of the question
        with (
            self.prefixes.reusing(adapter, pruner, batch, drafts if are_read else None) as reused,
            self.pruning(batch, reused.prompts, reused.orders) as trace,
        ):
            is_right = adapter.confirms(reused.prompts, drafts, are_read, **self.generation)
        rows = self._rows(batch, trace, adapter.read(drafts))
        right = [place for place, right in enumerate(is_right) if right]
        self.prefixes.note([(rows[place].id, drafts[place]) for place in right])
        seen = replace(batch, inputs=batch.inputs.without_images())
        self.waiting += [(seen.rows([place]), row) for place, row in enumerate(rows) if not is_right[place]]
        done = [rows[place] for place in right]
        return done + (self._answer_waiting() if len(self.waiting) >= len(batch.samples) else [])

    def on_test_epoch_end(self) -> None:
        if self.waiting:
            self.folder.append(self._answer_waiting())

    def _answer_waiting(self) -> list[Prediction]:
        """Rows of questions whose earlier answers were not confirmed.

        Those with drafts of similar lengths go together, since a batch goes on until its longest answer ends.
        """
        waiting, self.waiting = sorted(self.waiting, key=lambda each: each[1].new_tokens), []
        for _, alike in groupby(waiting, key=lambda each: each[1].new_tokens.bit_length()):
            together = list(alike)
            for start in range(0, len(together), self.cfg.batch_size):
                batches, rows = zip(*together[start : start + self.cfg.batch_size], strict=True)
                answers, _ = self._generate_anew(Batch.joined(batches, self.parts.adapter.pad))
                for row, answer in zip(rows, answers, strict=True):
                    row.answer, row.new_tokens = answer.text, answer.new_tokens
        return [row for _, row in waiting]

    def _generate_anew(self, batch: Batch) -> tuple[list[Answer], Trace]:
        """Answers, and what was kept."""
        with (
            self.prefixes.reusing(self.parts.adapter, self.parts.pruner, batch) as reused,
            self.pruning(batch, reused.prompts, reused.orders) as trace,
        ):
            answers = self.parts.adapter.generate(reused.prompts, **self.generation)
        reused.replay.keep_answers([answer.ids for answer in answers])
        self.prefixes.note([(sample.id, answer.ids) for sample, answer in zip(batch.samples, answers, strict=True)])
        return answers, trace

    def _rows(self, batch: Batch, trace: Trace, answers: list[Answer]) -> list[Prediction]:
        first = batch.samples[0].id
        return self.rows(
            batch, trace, [{"answer": each.text, "new_tokens": each.new_tokens, "batch": first} for each in answers]
        )
