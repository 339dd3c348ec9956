"""What one budget for all cameras costs: the selection time of salient T-FPS as a multiple of T-FPS's.

    python -m benchmarks.one_budget
    python -m benchmarks.one_budget --tokens 729 --width 3584 --keep 0.05

Random tokens of six cameras on the CPU, one thread, CPU time, each way in turns; medians and quartiles. T-FPS has a
uniform budget, and one that gives the first camera twice an even share, as searched ratios do. Figure to reach: 1.2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prune2drive.cameras import CAMERAS
from prune2drive.pruning import TFPS, Context, Pool, Pruner, SalientTFPS
from prune2drive.pruning.selection import budget
from prune2drive.tasks.benchmark.rounds import Turns, spread
from prune2drive.token_map import TokenMap


def context(pools: Sequence[Pool]) -> Context:
    """Returns a context for methods that read the tokens alone."""
    empty: Any = torch.empty(0)
    rest: Any = None
    return Context(tuple(pools), None, rest, empty, empty, rest, empty, rest)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Selection time of salient T-FPS beside T-FPS.")
    parser.add_argument("--tokens", type=int, default=729, help="of a camera")
    parser.add_argument("--width", type=int, default=896, help="channels of a token")
    parser.add_argument("--keep", type=float, default=0.1, help="keep ratio")
    parser.add_argument("--rounds", type=int, default=9, help="that count")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    count, cameras = options.tokens, len(CAMERAS)
    tokens_CND = torch.randn(cameras, count, options.width, generator=torch.Generator().manual_seed(0))
    spans = {camera: (at * count, (at + 1) * count) for at, camera in enumerate(CAMERAS)}
    token_map, every_N = TokenMap.from_spans(spans, cameras * count), torch.arange(count)
    apart = context([Pool("a", (name,), 0, token_map.positions(name), token_map, every_N) for name in CAMERAS])
    all_M = torch.arange(cameras * count)
    together = context([Pool("a", CAMERAS, 0, all_M, token_map, all_M)])
    kept = budget(options.keep, count)

    def way(pruner: Pruner, tokens: Tensor, k: int, ctx: Context) -> Any:
        return partial(turns.seconds, lambda: pruner.select(tokens, k, ctx))

    turns = Turns(torch.device("cpu"), options.rounds, 1)
    taken = turns.take(
        {
            "tfps": way(TFPS(), tokens_CND, kept, apart),
            "tfps_twice": way(TFPS(), tokens_CND, 2 * kept, apart),  # nested: all cameras at the largest budget
            "salient": way(SalientTFPS(), tokens_CND.reshape(1, -1, options.width), cameras * kept, together),
        }
    )
    found = spread("of_uniform_tfps", taken["salient"], taken["tfps"])
    found |= spread("of_tfps_with_a_camera_at_twice_its_share", taken["salient"], taken["tfps_twice"])
    print(json.dumps({"tokens": count, "width": options.width, "kept": kept, "rounds": options.rounds} | found))


if __name__ == "__main__":
    main()
