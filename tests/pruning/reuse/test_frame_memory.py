"""What tells remembered frames and models apart."""

import torch
from helpers import frames

from prune2drive.pruning import TFPS
from prune2drive.pruning.reuse.frame_memory import FrameMemory, fingerprint
from prune2drive.pruning.reuse.frame_states import Frames, StatesWanted
from prune2drive.pruning.reuse.prefix_store import PrefixStore


def test_frames_are_told_apart_by_images_text_model_and_method():
    def frame(name="frame", ids=(1, 2, 3)):
        return Frames([name], [torch.tensor(ids)], [], [0], [3], lambda **options: None)

    store, wanted = PrefixStore(1), StatesWanted.of(TFPS(layer=1))
    memory = FrameMemory(store, "model")
    memory.remember(frame(), wanted, [{"hidden.0": torch.ones(3, 2)}])
    assert memory.states(frame(), wanted) and FrameMemory(store, "model").states(frame(), wanted)
    assert memory.states(frame("other"), wanted) is None
    assert memory.states(frame(ids=(1, 2, 4)), wanted) is None, "other words before the images"
    assert memory.states(frame(), StatesWanted.of(TFPS(layer=2))) is None
    assert FrameMemory(store, "other model").states(frame(), wanted) is None


def test_a_full_memory_leaves_the_rest_to_be_computed(make_family):
    family, memory = make_family("llava"), FrameMemory(PrefixStore(3e-5), "model")
    for keep in (0.5, 0.25):
        found = frames.by_frame(family, TFPS(), keep, memory=memory)
        frames.assert_same(found, frames.by_question(family, TFPS(), keep))


def test_weights_are_told_apart(make_family):
    one, other = make_family("llava").model, make_family("internvl").model
    assert fingerprint(one) == fingerprint(one) != fingerprint(other)
    small = torch.nn.Linear(3, 3)
    before = fingerprint(small)
    with torch.no_grad():
        small.bias[2] += 1
    assert fingerprint(small) != before
