"""Time of farthest point sampling relative to the matrix product it is built on.

    python -m benchmarks.selection

Six cameras of 729 tokens, 10 % kept. The yardstick is the bare product of each camera's token matrix with its
transpose. Beside it stands the plain algorithm, one camera after another, whose picks must be the same. All take turns
in one process, in an order that turns round with every round; a ratio is the median of those of single rounds.
Figures to reach: 1.10 at width 4096, 1.15 at 896.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.prefill import CAMERAS, PER_CAMERA
from prune2drive.pruning.selection import budget, farthest_points


def plain(tokens_CND: Tensor, k: int) -> Tensor:
    """Selects by the algorithm as the paper's code has it: every camera by itself, from its most isolated token."""
    picks_CK = []
    for tokens_ND in tokens_CND:
        unit_ND = tokens_ND / tokens_ND.norm(dim=1, keepdim=True)
        distance_NN = 1 - unit_ND @ unit_ND.T
        distance_NN.fill_diagonal_(torch.inf)
        picks = [int(distance_NN.min(dim=1).values.argmax())]
        while len(picks) < k:
            gap_N = distance_NN[picks].min(dim=0).values
            gap_N[picks] = -1
            picks.append(int(gap_N.argmax()))
        picks_CK.append(torch.tensor(picks))
    return torch.stack(picks_CK)


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


def measure(width: int, args: argparse.Namespace) -> dict[str, object]:
    """Returns medians, ratios to the product with their quartiles, and whether the plain algorithm picks the same."""
    device = torch.device(args.device)
    generator = torch.Generator(device).manual_seed(0)
    tokens_CND = torch.randn(CAMERAS, PER_CAMERA, width, device=device, generator=generator)
    kept = budget(args.keep, PER_CAMERA)
    work: dict[str, Callable[[], Tensor]] = {
        "product": lambda: tokens_CND @ tokens_CND.transpose(1, 2),
        "selection": lambda: farthest_points(tokens_CND, kept),
        "plain": lambda: plain(tokens_CND, kept),
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(args.warm_up + args.rounds):
        for name in list(work)[:: -1 if turn % 2 else 1]:
            taken[name].append(seconds(work[name], device))
    row: dict[str, object] = {"width": width, "kept": kept, "n": args.rounds}
    for name, times in taken.items():
        row[f"{name}_ms"] = round(1000 * statistics.median(times[args.warm_up :]), 2)
    for name, key in (("selection", "ratio"), ("plain", "plain_ratio")):
        turns = zip(taken[name][args.warm_up :], taken["product"][args.warm_up :], strict=True)
        low, middle, high = statistics.quantiles((own / product for own, product in turns), n=4)
        row |= {key: round(middle, 3), f"{key}_quartiles": [round(low, 3), round(high, 3)]}
    return row | {"same_picks": torch.equal(work["selection"]().cpu(), work["plain"]())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[896, 4096])
    parser.add_argument("--keep", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for width in args.widths:
        print(json.dumps(measure(width, args)))


if __name__ == "__main__":
    main()
