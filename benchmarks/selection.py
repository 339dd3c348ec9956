"""Time of farthest point sampling relative to the matrix product it is built on.

    python -m benchmarks.selection

Six cameras of 729 tokens, 10 % kept. The yardstick is the bare product of each camera's token matrix
with its transpose, measured in turns with the selection in the same process.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.prefill import CAMERAS, PER_CAMERA, interleaved
from prune2drive.pruning.selection import budget, farthest_points


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """CPU time on a CPU, wall time on a GPU."""
    if device.type != "cuda":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def measure(width: int, args: argparse.Namespace) -> dict[str, float]:
    """Medians for tokens of `width` channels."""
    device = torch.device(args.device)
    tokens_CND = torch.randn(
        CAMERAS, PER_CAMERA, width, device=device, generator=torch.Generator(device).manual_seed(0)
    )
    kept = budget(args.keep, PER_CAMERA)
    runs = {
        "product": partial(seconds, lambda: tokens_CND @ tokens_CND.transpose(1, 2), device),
        "selection": partial(seconds, lambda: farthest_points(tokens_CND, kept, args.metric), device),
    }
    medians = interleaved(runs, args.rounds, args.warm_up)
    return {
        "width": width,
        "kept": kept,
        "n": args.rounds,
        **{f"{name}_ms": round(1000 * value, 2) for name, value in medians.items()},
        "ratio": round(medians["selection"] / medians["product"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[896, 4096])
    parser.add_argument("--keep", type=float, default=0.1)
    parser.add_argument("--metric", default="cosine")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for width in args.widths:
        print(json.dumps(measure(width, args)))


if __name__ == "__main__":
    main()
