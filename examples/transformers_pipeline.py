"""Prunes a plain transformers pipeline: its calls stay as they are, inside `prune()`.

    python examples/transformers_pipeline.py                                     # offline: the packaged model
    python examples/transformers_pipeline.py --pruner uniform --keep 0.25 --questions 20 --batch-size 4
    python examples/transformers_pipeline.py --model llava-hf/llava-1.5-7b-hf    # needs torchvision

The images are drawn by MiniDrive, so no data set is needed.
"""

import argparse
from typing import Any

from transformers import Pipeline, pipeline

from prune2drive import prune
from prune2drive.integrations.named_pruner import build_pruner
from prune2drive.minidrive.architecture import build_processor
from prune2drive.minidrive.dataset import PER_FRAME, MiniDrive
from prune2drive.minidrive.model import packaged
from prune2drive.sample import IMAGE_MARKER, Sample


def load(checkpoint: str | None) -> Pipeline:
    """Returns a pipeline of a hub id or folder, or of the model that comes with the package."""
    processor = {} if checkpoint else {"processor": build_processor()}
    return pipeline("image-text-to-text", model=checkpoint or str(packaged()), dtype="float32", **processor)


def chat(sample: Sample) -> list[dict[str, Any]]:
    """Returns a sample's prompt as the pipeline takes it, each image in the place of its marker."""
    content: list[dict[str, Any]] = []
    for text, image in zip(sample.prompt.split(IMAGE_MARKER), [*sample.images.values(), None], strict=True):
        content.append({"type": "text", "text": text})
        if image is not None:
            content.append({"type": "image", "image": image})
    return [{"role": "user", "content": content}]


def ask(pipe: Pipeline, samples: list[Sample]) -> list[str]:
    """Returns the answers of one batch."""
    chats = [chat(sample) for sample in samples]
    options = {"do_sample": False, "max_new_tokens": 32}
    found = pipe(text=chats, batch_size=len(chats), return_full_text=False, generate_kwargs=options)
    return [answer[0]["generated_text"].strip() for answer in found]


def main() -> None:
    parser = argparse.ArgumentParser(description="Prune a transformers pipeline.")
    parser.add_argument("--model", help="hub id or folder of a supported model (default: the packaged one)")
    parser.add_argument("--pruner", default="tfps", help="as pruner= of the command line (default: tfps)")
    parser.add_argument("--keep", type=float, default=0.1, help="keep ratio of every image (default: 0.1)")
    parser.add_argument("--questions", type=int, default=8, help="of different scenes (default: 8)")
    parser.add_argument("--batch-size", type=int, default=4, help="questions in a batch (default: 4)")
    options = parser.parse_args()

    pipe, dataset, shares = load(options.model), MiniDrive(), []
    samples = [dataset[index * (PER_FRAME + 1)] for index in range(options.questions)]
    for first in range(0, len(samples), options.batch_size):
        batch = samples[first : first + options.batch_size]
        full = ask(pipe, batch)
        with prune(pipe.model, build_pruner(options.pruner), options.keep) as trace:
            pruned = ask(pipe, batch)
        shares += [kept / before for kept, before in zip(trace.kept_tokens, trace.full_tokens, strict=True)]
        for sample, *answers in zip(batch, full, pruned, strict=True):
            print(f"{sample.question}\n  all tokens  {answers[0]}\n  pruned      {answers[1]}")
    print(f"kept {sum(shares) / len(shares):.1%} of the visual tokens (mean, n = {len(shares)})")


if __name__ == "__main__":
    main()
