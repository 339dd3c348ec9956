"""Questions about shared frames, asked of tiny models one frame and one question at a time."""

from dataclasses import dataclass

import torch

from helpers.families import CAMERAS, PAD
from prune2drive.families.base import ImageInfo
from prune2drive.families.locate import locate_batch
from prune2drive.models.prompts import Prompts
from prune2drive.models.retiring import generate_retiring
from prune2drive.pruning import prune
from prune2drive.pruning.reuse.frame_states import Frames
from prune2drive.pruning.reuse.frames import prune_frames

FRAME_OF = [0, 1, 0, 2, 1, 0]
ENDS = [[51], [52, 53, 54], [55, 56], list(range(60, 71)), [57], [58, 59, 60, 61]]
COMMON = [41, 42]  # behind the images of every prompt
STEPS, RETIRING_STEPS = 3, 12


@dataclass
class Asked:
    """What a model was asked and said: new tokens, their logits, what pruning kept."""

    tokens: torch.Tensor
    logits: torch.Tensor
    trace: object


def prompts(family, frame_of=FRAME_OF, ends=ENDS, cameras=None, repeat=False):
    """Prompts that share frames, with so many cameras each; with `repeat`, prompts that each bring their images."""
    shown = list(range(max(frame_of) + 1)) if not repeat else frame_of
    counts = [cameras[frame] if cameras else len(CAMERAS) for frame in shown]
    texts = [[11, 12, 13][: 3 - frame % 2] for frame in shown]  # frames of unequal lengths
    plain = family.inputs(texts, seeds=shown, counts=counts)
    names, info = [CAMERAS[:count] for count in counts], ImageInfo.of_call(plain)
    maps = locate_batch(plain["input_ids"], plain["attention_mask"], family.model.config, names, info)
    whole = Prompts(plain, tuple(maps), image_counts=tuple(counts))
    endings = [COMMON + end for end in ends]
    firsts = endings if repeat else [endings[frame_of.index(frame)] for frame in shown]
    whole = whole._rearranged(range(len(shown)), whole.lengths, firsts, PAD)
    asked = whole if repeat else whole.asked(frame_of, endings, PAD)
    return asked.to(family.model.device)


def naming(asked, count):
    return {
        "token_map": asked.token_maps,
        "sample_ids": [f"sample {row}" for row in range(count)],
        "questions": [f"question {row}" for row in range(count)],
    }


def said(model, trace, inputs, **options):
    options = {"max_new_tokens": STEPS, "do_sample": False, **options}
    length = inputs["input_ids"].shape[1]
    out = model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)
    return Asked(out.sequences[:, length:], torch.stack(out.logits), trace)


@torch.inference_mode()
def by_question(family, pruner, keep, options=(), frame_of=FRAME_OF, ends=ENDS, cameras=None, **pruning):
    asked = prompts(family, frame_of, ends, cameras, repeat=True)
    with prune(family.model, pruner, keep, **naming(asked, len(ends)), **pruning) as trace:
        return said(family.model, trace, asked.inputs, **dict(options))


@torch.inference_mode()
def by_frame(
    family,
    pruner,
    keep,
    options=(),
    frame_of=FRAME_OF,
    ends=ENDS,
    cameras=None,
    memory=None,
    images=True,
    ends_at=None,
    packed=False,
    **pruning,
):
    model, asked = family.model, prompts(family, frame_of, ends, cameras)
    start = asked.beginnings(PAD)

    def read(with_images, **more):
        assert images or not with_images
        inputs = start if with_images else start.without_images()
        model.generate(**inputs.inputs, max_new_tokens=1, do_sample=False, **more)

    names = [f"frame {frame}" for frame in range(len(start.lengths))]
    frames = Frames(names, start.own_ids, start.token_maps, asked.frame_of, asked.behind(start), read)
    repeats = dict(options).get("num_beams", 1)
    more = {**naming(asked, len(ends)), **pruning, "memory": memory, "repeats": repeats}
    with prune_frames(frames, model, pruner, keep, **more) as hooks:
        if packed and hooks.is_begun:
            limit = STEPS if ends_at is None else RETIRING_STEPS
            return Asked(hooks.generate_greedily(torch.tensor(ends_at or [-1]), limit), None, hooks.trace)
        if hooks.is_begun:
            hooks.read_questions()
        left = asked.text_alone() if hooks.is_begun else asked.without_images()
        if ends_at is None:
            return said(model, hooks.trace, left.inputs, past_key_values=hooks.cache, **dict(options))
        ends = torch.tensor(ends_at)
        model.generation_config.eos_token_id = ends_at
        try:
            tokens = generate_retiring(model, left.inputs, hooks.cache, ends, hooks.keep_rows, RETIRING_STEPS)
        finally:
            model.generation_config.eos_token_id = None
        return Asked(tokens, torch.zeros(1), hooks.trace)


def assert_same(found, expected, beams=1):
    """The same tokens, logits within 1e-4 of the largest, and the same tokens kept of every prompt."""
    assert torch.equal(found.tokens, expected.tokens)
    if beams == 1 and found.logits is not None:
        assert (found.logits - expected.logits).abs().max() <= 1e-4 * expected.logits.abs().max()
    for name in ("kept", "picked"):
        pairs = zip(getattr(found.trace, name), getattr(expected.trace, name), strict=True)
        assert all(one[camera].tolist() == other[camera].tolist() for one, other in pairs for camera in other)
    for name in ("full_tokens", "kept_tokens", "stages", "nominal_tokens", "raw_tokens", "select_flops"):
        assert getattr(found.trace, name) == getattr(expected.trace, name), name
    pairs = zip(found.trace.positions, expected.trace.positions, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
