"""Questions that share frames, and what a model answers to them."""

import torch

from helpers.families import CAMERAS, PAD
from prune2drive.models.prompts import Prompts
from prune2drive.pruning import TFPS, prune
from prune2drive.pruning.reuse.prune import prune_reusing
from prune2drive.pruning.reuse.shared_prefix import PromptPrefix

FRAMES = [0, 1, 0, 1, 2, 0]
COMMON = [41, 42]  # what every prompt says behind its images
TAILS = [[51], [52, 53, 54], [55, 56], list(range(60, 71)), [57], [58, 59, 60, 61]]
NAMES = [f"sample {row}" for row in range(len(FRAMES))]
STEPS = 3


def prompts(family, frames=FRAMES, tails=TAILS):
    """Questions about some frames, and the orders that say which frame each begins with."""
    plain = family.inputs([[11, 12, 13]] * len(frames), seeds=frames)
    with torch.inference_mode(), prune(family.model, TFPS(), 1.0, cameras=CAMERAS) as trace:
        family.model(**plain)
    asked = Prompts(plain, tuple(trace.token_maps)).followed_by([COMMON + tail for tail in tails], PAD)
    common = [length - len(tail) for length, tail in zip(asked.lengths, tails, strict=True)]
    return asked, {
        name: PromptPrefix(f"frame {frame}", length) for name, frame, length in zip(NAMES, frames, common, strict=False)
    }


def answers(model, asked, pruner, keep, selections=None, **options):
    positions = options.pop("positions", None)
    naming = {"token_map": asked.token_maps, "sample_ids": NAMES[: len(asked.lengths)]}
    given = (model, pruner, keep)
    naming |= {"positions": positions}
    context = prune(*given, **naming) if selections is None else prune_reusing(selections, *given, **naming)
    with torch.inference_mode(), context as trace:
        said = model.generate(
            **asked.inputs,
            **{"max_new_tokens": STEPS, "do_sample": False, **options},
            return_dict_in_generate=True,
            output_logits=True,
        )
    return said.sequences, torch.stack(said.logits), trace
