"""The evaluation loop of runs that differ only in their keep ratios: answers from what earlier runs computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from prune2drive.data.datamodule import Batch
from prune2drive.models.prompts import Answer, Prompts
from prune2drive.pruning import Trace
from prune2drive.pruning.reuse.prune import prune_reusing
from prune2drive.sample import Prediction
from prune2drive.tasks.loop import Evaluation
from prune2drive.tasks.prefix_session import PrefixSession, Reused, ids_of


class CachedEvaluation(Evaluation):
    """Answers with what earlier runs computed; reports no seconds, since those that remain would mislead.

    Where every question of a batch was answered before, these answers are verified instead of generated. Questions
    whose answers change wait until they fill a batch, and are answered together.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.warm_up = 0  # nothing is timed
        self.rejected: list[tuple[Batch, Prediction]] = []

    @property
    def session(self) -> PrefixSession:
        assert self.components.prefixes is not None
        return self.components.prefixes

    def vision_flops(self, batch: Batch) -> dict[str, int]:
        """Counts once what batches without images, whose states are stored, no longer tell."""
        known = self.session.vision_flops
        if ids_of(batch) not in known:
            known[ids_of(batch)] = super().vision_flops(batch)
        return known[ids_of(batch)]

    def answer(self, batch: Batch) -> list[Prediction]:
        adapter, pruner, session = self.components.adapter, self.components.pruner, self.session
        drafts = session.drafts(adapter, pruner, batch, self.generation)
        if drafts is None:
            self.vision_flops(batch)
            answers, trace = self._generate_cached(batch)
            session.keep(adapter, pruner, batch)
            return self.rows(batch, trace, answers)
        # A method that reads the question would take a draft after the prompt for a part of it.
        in_prompt = pruner.traits.shares_picks_per_frame
        with (
            session.reusing(adapter, pruner, batch, drafts if in_prompt else None) as reused,
            self.pruning_reused(batch, reused) as trace,
        ):
            is_right = adapter.verify_answers(reused.prompts, drafts, in_prompt, **self.generation)
        rows = self.rows(batch, trace, adapter.read(drafts))
        right = [place for place, right in enumerate(is_right) if right]
        session.count_answers([(rows[place].id, drafts[place]) for place in right])
        seen = replace(batch, inputs=batch.inputs.without_images())
        self.rejected += [(_only(seen, place), row) for place, row in enumerate(rows) if not is_right[place]]
        done = [rows[place] for place in right]
        return done + (self._answer_rejected() if len(self.rejected) >= len(batch.samples) else [])

    def on_test_epoch_end(self) -> None:
        if self.rejected:
            self.folder.append(self._answer_rejected())

    def pruning_reused(self, batch: Batch, reused: Reused) -> Any:
        """Returns the context in which a batch's prompts are pruned with cached selections."""
        return prune_reusing(reused.selections, *self.pruned, **self.prune_options(batch, reused.prompts))

    def _answer_rejected(self) -> list[Prediction]:
        """Generates the answers to questions whose drafts were rejected, and returns their rows.

        Those with drafts of similar lengths go together, since a batch goes on until its longest answer ends.
        """
        rejected, self.rejected = sorted(self.rejected, key=lambda pair: pair[1].new_tokens), []
        for _, similar in groupby(rejected, key=lambda pair: pair[1].new_tokens.bit_length()):
            together = list(similar)
            for start in range(0, len(together), self.cfg.batch_size):
                batches, rows = zip(*together[start : start + self.cfg.batch_size], strict=True)
                answers, _ = self._generate_cached(_joined(batches, self.components.adapter.pad))
                for row, answer in zip(rows, answers, strict=True):
                    row.answer, row.new_tokens = answer.text, answer.new_tokens
        return [row for _, row in rejected]

    def _generate_cached(self, batch: Batch) -> tuple[list[Answer], Trace]:
        """Generates a batch's answers and stores them; returns them with the trace."""
        adapter = self.components.adapter
        with (
            self.session.reusing(adapter, self.components.pruner, batch) as reused,
            self.pruning_reused(batch, reused) as trace,
        ):
            answers = adapter.generate(reused.prompts, **self.generation)
        reused.replay.keep_answers([answer.ids for answer in answers])
        self.session.count_answers(zip(ids_of(batch), (answer.ids for answer in answers), strict=True))
        return answers, trace


def _only(batch: Batch, place: int) -> Batch:
    """Returns a batch of the sample at one place."""
    return replace(batch, samples=[batch.samples[place]], failures=[], inputs=batch.inputs.rows([place]))


def _joined(batches: Sequence[Batch], pad: int) -> Batch:
    """Joins batches into one whose prompts are filled up with `pad`."""
    samples = [sample for batch in batches for sample in batch.samples]
    return Batch(samples, inputs=Prompts.joined([batch.inputs for batch in batches], pad))
