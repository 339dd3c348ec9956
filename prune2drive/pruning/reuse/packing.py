"""Reads questions about frames as one row a frame: behind the frame's beginning, each seeing that and itself.

A row for every question would take a copy of the beginning, and padding up to the longest question. Rows that are made
of frames stay so while answers are generated greedily; `generate` itself wants a row for every prompt.

Shape suffixes: B prompts, F frames, P positions of a frame's beginning (padded), K positions of it that a layer keeps,
N new positions of a frame (padded), T all positions behind its beginning (padded), L positions of a prompt in a layer,
D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from prune2drive.families import decoder_of
from prune2drive.families.kv_cache import CACHE
from prune2drive.pruning.reuse.padding import PaddingSkip
from prune2drive.pruning.surgery.cut import Cut, pad_left
from prune2drive.pruning.surgery.forward import ForwardPass
from prune2drive.pruning.surgery.rotary_and_mask import proportional_mask


class PackedReader:
    """Reads on behind frames' beginnings, the prompts about a frame in one row.

    Args:
        decoder: the model's decoder, with the hooks of the beginnings' cuts on it.
        cache: the KV cache with the beginnings, a row a frame.
        real_FP: True at the beginnings' real positions.
        cuts: the beginnings' cuts.
        frame_of: index of each prompt's frame.
        delta_F: by how much rotary positions behind each beginning differ from its length; None where they do not.

    Attributes:
        step: the forward pass that is under way.
    """

    step: ForwardPass | None = None

    def __init__(
        self,
        decoder: Any,
        cache: Any,
        real_FP: Tensor,
        cuts: Sequence[Cut],
        frame_of: Sequence[int],
        delta_F: Tensor | None,
    ) -> None:
        self.decoder, self.cache, self.cuts, self.frame_of, self.delta_F = decoder, cache, cuts, frame_of, delta_F
        self.real_FP, self.padding = real_FP, PaddingSkip()
        begun = real_FP.sum(dim=1).tolist()
        self.lengths = [begun[frame] for frame in frame_of]
        self.owner_FT = torch.zeros(len(real_FP), 0, dtype=torch.long)

    def install(self, undo: ExitStack) -> None:
        """Lets linear layers skip padding until `undo` closes."""
        self.padding.install(self.decoder, undo)

    def read(self, texts: Mapping[int, Tensor], last: Sequence[int] | None = None) -> Tensor:
        """Reads more of some prompts.

        Args:
            texts: index of a prompt -> token ids that follow, one at least.
            last: of how many of each one's last positions the output is wanted; by default of one.

        Returns:
            The decoder's output at these positions, prompt after prompt; [sum(last), D].
        """
        embed = self.decoder.get_input_embeddings()
        device = embed.weight.device
        ids_FN, owner_FN, place_FN, ends = self._laid_out(texts)
        self.owner_FT = torch.cat([self.owner_FT, owner_FN], dim=1)
        own_FNT = owner_FN[:, :, None] == self.owner_FT[:, None]
        own_FNT[:, :, -ids_FN.shape[1] :].tril_()
        embeds_FND = embed(ids_FN.to(device))
        positions = place_FN.to(device) + (0 if self.delta_F is None else self.delta_F.to(device).view(-1, 1))
        if (axes := decoder_of(self.decoder.config).rope_axes) > 1:
            positions = positions.expand(axes, -1, -1)
        self.step = ForwardPass(self.cache.get_seq_length(), None, positions)
        self.step.layer_mask |= {cut.layer: self._mask(cut, own_FNT, embeds_FND.dtype) for cut in self.cuts}
        self.padding.expect((owner_FN >= 0).to(device))
        with ExitStack() as undo:
            undo.callback(setattr, self, "step", None)
            undo.callback(self.padding.expect, None)
            take_any_mask(self.decoder.config, undo)
            states_FND: Tensor = self.decoder(
                inputs_embeds=embeds_FND,
                attention_mask=packed_mask(self.real_FP.to(device), own_FNT),
                position_ids=positions,
                **{CACHE: self.cache},
            ).last_hidden_state
        counts = [1] * len(ends) if last is None else last
        wanted = [
            (row, end - back) for (row, end), count in zip(ends, counts, strict=True) for back in range(count)[::-1]
        ]
        return states_FND[tuple(torch.tensor(wanted, device=states_FND.device).T)]

    def forget(self, prompt: int, count: int) -> None:
        """Lets a prompt go on as if its last positions had not been read.

        Args:
            prompt: index of the prompt.
            count: how many of its last positions, none of them from before what was read last.
        """
        row = self.frame_of[prompt]
        own = (self.owner_FT[row] == prompt).nonzero().flatten()
        self.owner_FT[row, own[len(own) - count :]] = -1
        self.lengths[prompt] -= count

    def places(self, real_FK: Tensor) -> tuple[Tensor, Tensor]:
        """Returns where a layer's KV cache holds what was read of each prompt, padded on the left.

        Args:
            real_FK: True where the layer holds a real position of a frame's beginning.

        Returns:
            Positions in the row of the prompt's frame, and where they are real; both [B, L], on the CPU.
        """
        rows = torch.tensor(self.frame_of)
        own = self.owner_FT[rows] == torch.arange(len(rows))[:, None]
        return pad_left([held.nonzero().flatten() for held in torch.cat([real_FK.cpu()[rows], own], dim=1)])

    def _laid_out(self, texts: Mapping[int, Tensor]) -> tuple[Tensor, Tensor, Tensor, list[tuple[int, int]]]:
        """Puts new text of prompts one after the other into the rows of their frames.

        Returns:
            Token ids, the prompt that each belongs to (-1 at padding) and its position there, each [F, N]; and row and
            column of each prompt's last token.
        """
        filled, last = [0] * len(self.real_FP), []
        starts = {}
        for prompt, ids in texts.items():
            frame = self.frame_of[prompt]
            starts[prompt] = filled[frame]
            filled[frame] += len(ids)
            last.append((frame, filled[frame] - 1))
        ids_FN = torch.zeros(len(filled), max(filled), dtype=torch.long)
        owner_FN, place_FN = torch.full_like(ids_FN, -1), torch.zeros_like(ids_FN)
        for prompt, ids in texts.items():
            part = self.frame_of[prompt], slice(starts[prompt], starts[prompt] + len(ids))
            ids_FN[part], owner_FN[part] = ids, prompt
            place_FN[part] = torch.arange(self.lengths[prompt], self.lengths[prompt] + len(ids))
            self.lengths[prompt] += len(ids)
        return ids_FN, owner_FN, place_FN, last

    def _mask(self, cut: Cut, own_FNT: Tensor, dtype: torch.dtype) -> Tensor:
        mask = packed_mask(cut.real_BK, own_FNT)
        if cut.log_sizes_BK is None:
            return mask
        return proportional_mask(cut.log_sizes_BK, mask, own_FNT.shape[1], own_FNT.shape[2], dtype)


def packed_mask(real_FK: Tensor, own_FNT: Tensor) -> Tensor:
    """Returns where new positions may look: at their frame's beginning and at their own prompt so far.

    Args:
        real_FK: True at real positions of the beginning.
        own_FNT: True where a position behind it belongs to the new position's prompt and is not later.

    Returns:
        An attention mask; [F, 1, N, K + T].
    """
    begun_FNK = real_FK[:, None].expand(-1, own_FNT.shape[1], -1)
    return torch.cat([begun_FNK, own_FNT.to(real_FK.device)], dim=2)[:, None]


def take_any_mask(config: Any, undo: ExitStack) -> None:
    """Lets a decoder compute attention in the one way that takes any mask, until `undo` closes."""
    undo.callback(setattr, config, "_attn_implementation", config._attn_implementation)
    config._attn_implementation = "sdpa"


def generate_greedily(
    reader: PackedReader,
    head: nn.Module,
    texts: Sequence[Tensor],
    ends: Tensor,
    max_new_tokens: int,
    drafts: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """Answers prompts with the likeliest tokens, each until it ends.

    A draft is read with its prompt, and its tokens count as far as they are the likeliest: the answers are the same, in
    fewer passes (speculative decoding, arXiv 2211.17192, with a draft that is at hand).

    Args:
        reader: has read the frames.
        head: turns states into logits.
        texts: token ids of each prompt behind its frame's beginning.
        ends: ids of tokens that end an answer.
        max_new_tokens: most tokens of an answer.
        drafts: a guess of each answer's token ids, which may be empty.

    Returns:
        Generated token ids of each prompt, up to its end token.
    """
    ended = set(ends.tolist())
    answers: list[list[int]] = [[] for _ in texts]
    guesses = [_unended(draft, ended)[: max_new_tokens - 1] for draft in drafts or answers]
    going = {row: torch.cat([ids, ids.new_tensor(guesses[row])]) for row, ids in enumerate(texts)}
    while going:
        guessed = [guesses[row] for row in going]
        counts = [1 + len(guess) for guess in guessed]
        found = head(reader.read(going, counts)).float().argmax(dim=-1).cpu().split(counts)
        following = {}
        for row, guess, likeliest in zip(going, guessed, map(Tensor.tolist, found), strict=True):
            right = next((at for at, token in enumerate(guess) if token != likeliest[at]), len(guess))
            answers[row] += likeliest[: right + 1]
            if answers[row][-1] not in ended and len(answers[row]) < max_new_tokens:
                following[row] = going[row].new_tensor([likeliest[right]])
                reader.forget(row, len(guess) - right)
            guesses[row] = []
        going = following
    return answers


def _unended(tokens: Sequence[int], ended: Set[int]) -> list[int]:
    return list(takewhile(lambda token: token not in ended, tokens))
