"""Pruned models for lmms-eval, as its model `prune2drive`.

lmms-eval --model prune2drive --model_args pretrained=FOLDER,pruner=tfps,keep=0.1 --tasks pope --batch_size 8
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from accelerate import PartialState
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.models.registry_v2 import ModelManifest
from loguru import logger as log
from tqdm import tqdm

from prune2drive.errors import InputError
from prune2drive.integrations.answers import Question, Reply, answer, cut_at, generation_options
from prune2drive.integrations.settings import Settings

UNREAD = ("max_batch_size",)  # given to every model, for automatic batch sizes


def manifest() -> ModelManifest:
    """Returns what lmms-eval registers the model by."""
    return ModelManifest("prune2drive", chat_class_path=f"{__name__}.{Prune2Drive.__name__}")


@dataclass
class VisualTokenCounts(TokenCounts):
    """Token counts of a sample that tell how many visual tokens its prompt had and how many of them were kept."""

    visual_tokens: int = 0
    kept_visual_tokens: int = 0

    def to_dict(self) -> dict[str, int | None]:
        visual = {"visual_tokens": self.visual_tokens, "kept_visual_tokens": self.kept_visual_tokens}
        return {**super().to_dict(), **visual}


class Prune2Drive(lmms):
    """A model whose visual tokens are pruned.

    Args:
        **given: what `Settings.read` takes.

    Raises:
        InputError: an argument is wrong; nothing is loaded then.
    """

    is_simple = False

    def __init__(self, **given: Any) -> None:
        super().__init__()
        state = PartialState()
        if state.num_processes > 1:
            given["device"] = str(state.device)
            self._rank, self._world_size = state.process_index, state.num_processes
        self.settings = Settings.read({name: value for name, value in given.items() if name not in UNREAD})
        self.settings.load()

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Prune2Drive:
        """Builds the model of a command line; exits with 2 after one line on stderr where an argument is wrong."""
        try:
            return super().create_from_arg_string(arg_string, additional_config)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.settings.device

    @property
    def batch_size(self) -> int:
        """Largest number of prompts in a batch."""
        return self.settings.batch_size

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers requests, and logs the shares of visual tokens that were kept."""
        replies: dict[int, Reply] = {}
        start = time.perf_counter()
        with tqdm(total=len(requests), disable=self.rank != 0, desc="Model Responding") as progress:
            for places, asked in self._batches(requests):
                questions = [self._question(requests[place]) for place in places]
                replies |= zip(places, answer(self.settings, questions, generation_options(asked)), strict=True)
                progress.update(len(places))
        results = []
        for place, request in enumerate(requests):
            reply = replies[place]
            counts = VisualTokenCounts(
                reply.prompt_tokens, reply.new_tokens, None, reply.visual_tokens, reply.kept_tokens
            )
            results.append(GenerationResult(cut_at(reply.text, request.args[2].get("until")), counts))
        self._log_shares(requests, [replies[place] for place in range(len(requests))], time.perf_counter() - start)
        return results

    def _batches(self, requests: Sequence[Instance]) -> Iterator[tuple[list[int], Mapping[str, Any]]]:
        """Yields the places of requests that are answered together, and the options that they have in common."""
        alike = defaultdict(list)
        for place, request in enumerate(requests):
            alike[repr(sorted(request.args[2].items(), key=str))].append(place)
        for places in alike.values():
            for first in range(0, len(places), self.batch_size):
                yield places[first : first + self.batch_size], requests[places[0]].args[2]

    def _question(self, request: Instance) -> Question:
        _, messages_of, _, index, task, split = request.args
        return Question(f"{task}/{split}/{index}", messages_of(self.task_dict[task][split][index]))

    def _log_shares(self, requests: Sequence[Instance], replies: Sequence[Reply], seconds: float) -> None:
        """Logs each task's mean share of kept visual tokens; all tasks' goes into the results too."""
        by_task = defaultdict(list)
        for request, reply in zip(requests, replies, strict=True):
            if reply.visual_tokens and not request.metadata.get("__padding_only__"):
                by_task[request.task_name].append(reply)
        for task, rows in by_task.items():
            before, after = (fmean(getattr(each, name) for each in rows) for name in ("visual_tokens", "kept_tokens"))
            log.info(
                f"{task}: kept {after:.1f} of {before:.1f} visual tokens a prompt, a share of {share(rows):.4f} "
                f"(means, n = {len(rows)})"
            )
        rows = [reply for rows in by_task.values() for reply in rows]
        new_tokens = sum(each.new_tokens for each in replies)
        also = {"kept_share": share(rows), "visual_tokens": fmean(each.visual_tokens for each in rows)} if rows else {}
        log_metrics(seconds, new_tokens, new_tokens / seconds, also | {"prompts_with_images": float(len(rows))})

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Refuses tasks that compare probabilities.

        Raises:
            InputError: always.
        """
        raise InputError(
            "tasks that compare probabilities of given answers are not supported: choose one that generates"
        )

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refuses tasks of several rounds.

        Raises:
            InputError: always.
        """
        raise InputError("tasks of several rounds are not supported: choose one that asks once")

    def clean(self) -> None:
        """Frees the model's memory; lmms-eval calls it when all answers are there."""
        vars(self.settings.adapter).pop("model", None)
        super().clean()


def share(rows: Sequence[Reply]) -> float:
    """Returns the mean share of visual tokens that prompts keep."""
    return fmean(each.kept_tokens / each.visual_tokens for each in rows)
