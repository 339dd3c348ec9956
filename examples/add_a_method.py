"""Writes a pruning method in a few lines and compares it with T-FPS on MiniDrive, at the same number of tokens.

    python examples/add_a_method.py                              # 40 questions, a few seconds
    python examples/add_a_method.py --questions 1000 --keep 0.05

The method here keeps the tokens that differ most from the tokens around them. docs/contributing.md says how a method
becomes a choice of the command line.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, cosine_similarity

from prune2drive import prune
from prune2drive.metrics.intervals import difference, interval
from prune2drive.minidrive.dataset import PER_FRAME, MiniDrive
from prune2drive.minidrive.model import MiniDriveModel
from prune2drive.pruning import TFPS, Context, Pruner, ScorePruner
from prune2drive.sample import Sample

BATCH = PER_FRAME  # questions, all about one frame


@dataclass
class LocalContrast(ScorePruner):
    """Keeps the tokens least like the mean of the 3 x 3 tokens around them, by cosine similarity."""

    def score(self, tokens_CND: Tensor, ctx: Context) -> Tensor:
        """Returns one minus the cosine similarity of every token and its surroundings; [C, N], higher is kept first."""
        pools, count, channels = tokens_CND.shape
        side = round(count**0.5)  # MiniDrive's cameras are square grids
        grid_CDHW = tokens_CND.transpose(1, 2).reshape(pools, channels, side, side)
        around_CDHW = avg_pool2d(grid_CDHW, 3, stride=1, padding=1, count_include_pad=False)
        return 1 - cosine_similarity(grid_CDHW, around_CDHW, dim=1).flatten(1)


def batches(dataset: MiniDrive) -> Iterator[list[Sample]]:
    """Yields the questions of one frame after the other."""
    for start in range(0, len(dataset), BATCH):
        yield [dataset[index] for index in range(start, min(start + BATCH, len(dataset)))]


def exact_match(adapter: MiniDriveModel, dataset: MiniDrive, pruner: Pruner, keep: float) -> dict[str, float]:
    """Returns, for the id of every question, 1 if the answer equals its reference and 0 if not."""
    right = {}
    for samples in batches(dataset):
        prompts = adapter.collate(samples)
        with prune(adapter.model, pruner, keep, token_map=prompts.token_maps):
            answers = adapter.generate(prompts, max_new_tokens=32, do_sample=False)
        for sample, answer in zip(samples, answers, strict=True):
            right[sample.id] = float(answer.text == sample.reference)
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare a new method with T-FPS on MiniDrive.")
    parser.add_argument("--questions", type=int, default=40, help="of the validation split (default: 40)")
    parser.add_argument("--keep", type=float, default=0.1, help="keep ratio of every camera (default: 0.1)")
    options = parser.parse_args()

    torch.set_num_threads(1)
    adapter, dataset = MiniDriveModel(), MiniDrive("val", size=options.questions)
    frames = {dataset.ids[index]: dataset.frame(index) for index in range(len(dataset))}
    ours = exact_match(adapter, dataset, LocalContrast(), options.keep)
    theirs = exact_match(adapter, dataset, TFPS(), options.keep)
    print(f"exact match at {options.keep:.0%} of the visual tokens, n = {len(dataset)}, 95 % bootstrap intervals:")
    for name, result in {
        "LocalContrast": interval(ours, frames),
        "T-FPS": interval(theirs, frames),
        "difference": difference(ours, theirs, frames),
    }.items():
        print(f"  {name:14} {result.value:+.3f}  [{result.low:+.3f}, {result.high:+.3f}]")


if __name__ == "__main__":
    main()
