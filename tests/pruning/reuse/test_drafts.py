"""Drafts of answers, from earlier runs: the answers stay the model's, and take fewer passes where drafts agree."""

import random

import pytest
from helpers import frames

from prune2drive.pruning.methods.pact import PACT
from prune2drive.pruning.methods.tfps import TFPS
from prune2drive.pruning.reuse.frame_memory import FrameMemory
from prune2drive.pruning.reuse.packing import PackedReader
from prune2drive.pruning.reuse.prefix_store import PrefixStore

VOCABULARY = 40


@pytest.fixture
def reads(monkeypatch):
    """Numbers of positions read in each pass behind the frames."""
    passes, read = [], PackedReader.read

    def counted(self, texts, last=None):
        passes.append(sum(map(len, texts.values())))
        return read(self, texts, last)

    monkeypatch.setattr(PackedReader, "read", counted)
    return passes


def remembering(family, pruner, **options) -> tuple[FrameMemory, frames.Asked]:
    memory = FrameMemory(PrefixStore(1), "model")
    return memory, frames.by_frame(family, pruner, 0.5, memory=memory, packed=True, **options)


@pytest.mark.parametrize("pruner", [TFPS(), PACT(layer=1)], ids=repr)
def test_a_wrong_draft_changes_no_answer(make_family, pruner):
    family, draw = make_family("llava"), random.Random(0)
    memory, said = remembering(family, pruner)
    right = dict(memory.answers)
    for _ in range(15):
        for key, answer in right.items():
            wrong = draw.choices(range(VOCABULARY), k=draw.randint(0, frames.STEPS + 2))
            memory.answers[key] = [*answer[: draw.randint(0, len(answer))], *wrong]
        again = frames.by_frame(family, pruner, 0.5, memory=memory, packed=True, images=False)
        frames.assert_same(again, said)
        assert memory.answers == right


def test_a_right_draft_is_verified_in_one_pass(make_family, reads):
    family = make_family("llava_onevision")
    memory, said = remembering(family, TFPS())
    texts, passes = reads[0], len(reads)
    assert passes == frames.STEPS
    again = frames.by_frame(family, TFPS(), 0.5, memory=memory, packed=True, images=False)
    frames.assert_same(again, said)
    assert reads[passes:] == [texts + len(frames.ENDS) * (frames.STEPS - 1)]


def test_an_answer_goes_on_where_its_draft_went_wrong(make_family, reads):
    family = make_family("llava_onevision")
    memory, said = remembering(family, TFPS())
    passes, first = len(reads), next(iter(memory.answers))
    right = memory.answers[first]
    memory.answers[first] = [*right[:1], (right[1] + 1) % VOCABULARY, *right[2:]]
    again = frames.by_frame(family, TFPS(), 0.5, memory=memory, packed=True, images=False)
    frames.assert_same(again, said)
    assert reads[passes + 1 :] == [1] * (frames.STEPS - 2), "two tokens are known after the first pass"


def test_a_draft_holds_for_its_prompt_alone(make_family):
    family = make_family("llava")
    memory, said = remembering(family, TFPS())
    other = [[*end, 3] for end in frames.ENDS]
    assert len(memory.answers) == len(frames.ENDS)
    frames.by_frame(family, TFPS(), 0.5, memory=memory, packed=True, ends=other)
    assert len(memory.answers) == 2 * len(frames.ENDS)
    assert list(map(len, memory.answers.values())) == [len(said.tokens[0])] * 2 * len(frames.ENDS)
