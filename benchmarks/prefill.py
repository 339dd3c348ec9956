"""Prefill time of a pruned decoder against the full one, beside the ratio of their FLOPs.

    python -m benchmarks.prefill --keep 0.1
    python -m benchmarks.prefill --pruners all --hidden 1024 --heads 16 --rounds 3    # every method's share

A Llama decoder with random weights reads six cameras of 729 visual tokens. Full and pruned prefills
take turns in one process, and medians are compared, so only the ratio matters. On a CPU the process'
CPU time is taken, which neighbours on the machine disturb less; leave `--threads` at 1 for it. Methods
are those of configs/pruner with the settings there; those that need a vision tower are left out.
`select_share` is the part of the pruned prefill that goes into choosing.
Figure to reach: the time ratio within 15 % of the FLOPs ratio. Scaled-dot-product attention is causal,
so `causal_flops_ratio` says what it does; `flops_ratio` counts full squares, as a run's metrics do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from transformers import LlamaConfig, LlamaForCausalLM

from prune2drive import prune
from prune2drive.metrics.flops import decoder_flops, layer_lengths
from prune2drive.metrics.timing import timed
from prune2drive.pruning import Pruner
from prune2drive.pruning.selection import budget
from prune2drive.token_map import TokenMap

CAMERAS, PER_CAMERA = 6, 729
CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "pruner"


def interleaved(runs: Mapping[str, Callable[[], float]], rounds: int, warm_up: int) -> dict[str, float]:
    """Median of what each function returns, called in turns; the first `warm_up` rounds do not count."""
    seconds = [{name: run() for name, run in runs.items()} for _ in range(warm_up + rounds)][warm_up:]
    return {name: statistics.median(turn[name] for turn in seconds) for name in runs}


def build(args: argparse.Namespace) -> tuple[LlamaForCausalLM, torch.Tensor, TokenMap]:
    """The decoder, a prompt of embeddings [1, P, D], and where its visual tokens lie."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1000,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        max_position_embeddings=2 * CAMERAS * PER_CAMERA,
    )
    start = args.text // 2
    spans = {f"CAM_{i}": (start + i * PER_CAMERA, start + (i + 1) * PER_CAMERA) for i in range(CAMERAS)}
    length = args.text + CAMERAS * PER_CAMERA
    model = LlamaForCausalLM(config).eval().to(args.device)
    embeddings = torch.randn(1, length, args.hidden, device=args.device)
    return model, embeddings, TokenMap.from_spans(spans, length)


def methods(args: argparse.Namespace) -> dict[str, Pruner]:
    """The methods asked for, by name."""
    every = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    found = {}
    for name in every if args.pruners == ["all"] else args.pruners:
        if name not in every:
            raise SystemExit(f"--pruners {name}: choose from all, {', '.join(every)}")
        options = {} if args.layer is None else {"layer": args.layer}
        pruner = instantiate(
            OmegaConf.create({"seed": 0, "pruner": OmegaConf.load(CONFIGS / f"{name}.yaml")}).pruner, **options
        )
        if name != "none" and not pruner.traits.needs_vision:
            found[name] = pruner.resolve(args.layers)
    return found


def flops_ratio(config: LlamaConfig, pruner: Pruner, args: argparse.Namespace, causal: bool) -> float:
    """FLOPs of the pruned prefill, selection included, over those of the full one."""
    visual, kept = CAMERAS * PER_CAMERA, budget(args.keep, PER_CAMERA)
    sizes = pruner.sizes(kept, PER_CAMERA)
    stages = [(layer, CAMERAS * size + args.text) for layer, size in zip(pruner.cuts, sizes, strict=True)]
    lengths = layer_lengths(args.layers, visual + args.text, stages)
    before = [PER_CAMERA, *sizes]
    selection = CAMERAS * sum(pruner.flops(*pool, args.hidden) for pool in zip(before, sizes, strict=False))
    full = decoder_flops(config, [visual + args.text] * args.layers, causal)
    return (decoder_flops(config, lengths, causal) + selection) / full


def measure(args: argparse.Namespace) -> dict[str, object]:
    """One row a pruner: milliseconds, ratios, and the time ratio's relative difference from those of FLOPs."""
    model, embeddings, token_map = build(args)
    clock = time.perf_counter if model.device.type == "cuda" else time.process_time
    pruners = methods(args)
    shares: dict[str, list[float]] = {name: [] for name in pruners}

    def prefill(name: str | None) -> float:
        pruning: Any = prune(model, pruners[name], keep=args.keep, token_map=token_map) if name else nullcontext()
        with torch.inference_mode(), pruning as trace, timed(model) as wall, timed(model, clock=clock) as times:
            model(inputs_embeds=embeddings, use_cache=True, logits_to_keep=1)
        if name:
            shares[name].append(trace.select_seconds / wall.prefill)
        return times.prefill

    runs = {"full": lambda: prefill(None)} | {name: lambda n=name: prefill(n) for name in pruners}
    seconds = interleaved(runs, args.rounds, args.warm_up)
    rows: dict[str, dict[str, Any]] = {}
    for name, pruner in pruners.items():
        by_time = seconds[name] / seconds["full"]
        rows[name] = {
            "layers": list(pruner.cuts),
            "ms": round(1000 * seconds[name], 1),
            "time_ratio": round(by_time, 4),
        }
        rows[name]["select_share"] = round(statistics.median(shares[name][args.warm_up :]), 4)
        for prefix, causal in (("", False), ("causal_", True)):
            by_flops = flops_ratio(model.config, pruner, args, causal)
            rows[name][f"{prefix}flops_ratio"] = round(by_flops, 4)
            rows[name][f"{prefix}difference"] = round(by_time / by_flops - 1, 4)
    full_ms = round(1000 * seconds["full"], 1)
    return {**vars(args), "n": args.rounds, "tokens": token_map.length, "full_ms": full_ms, **rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pruners", nargs="+", default=["tfps", "random"], help="files of configs/pruner, or all")
    parser.add_argument("--layer", type=int, help="prune at the input of this layer; by default where each method does")
    parser.add_argument("--keep", type=float, default=0.1, help="keep ratio of every camera")
    for name, default in dict(
        text=100, hidden=512, intermediate=1408, layers=8, heads=8, kv_heads=4, rounds=7, warm_up=2, threads=1
    ).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps(measure(args), indent=2))


if __name__ == "__main__":
    main()
