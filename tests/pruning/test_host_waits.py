"""How often the host waits for the device while a method selects and a cut is made: counted on a pretended device."""

from types import SimpleNamespace

import pytest
import torch
from helpers.contexts import context
from helpers.families import PRUNERS
from helpers.pretend_device import Device
from hydra.utils import instantiate
from omegaconf import OmegaConf

from prune2drive.pruning import TFPS, NoPruner
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.dynamic_ratios import Dynamic
from prune2drive.pruning.surgery.budgets import BudgetRule
from prune2drive.pruning.surgery.cut import Cut, gather, pad_left
from prune2drive.pruning.surgery.prompt import Prompt
from prune2drive.pruning.surgery.select import kept_positions, remaining_pools, select_tokens, write_merged
from prune2drive.pruning.vision import VisionTokens
from prune2drive.token_map import TokenMap

pytestmark = pytest.mark.slow  # every method on every family


WIDTH, HEADS, TEXT = 16, 2, 7
SMALL = {"rows": 2, "cameras": 2, "count": 36, "k": 6}
LARGER = {"rows": 3, "cameras": 3, "count": 64, "k": 11}
OPTIONS = {
    "tfps": [{}, {"relevance": "question"}, {"relevance": "saliency"}, {"start": "random"}, {"mode": "nearest"}],
    "cdpruner": [{}, {"span": "sample"}],
    "mmr": [{"importance": name} for name in ("attention", "vision", "question", "norm")],
    "mmtok": [{}, {"features": "tokens"}],
    "sparsevlm": [{}, {"version": "2"}],
}


def build(path, options):
    return instantiate(OmegaConf.create({"seed": 0, "pruner": OmegaConf.load(path)}).pruner, **options)


def methods():
    for path in PRUNERS:
        for options in OPTIONS.get(path.stem, [{}]):
            made = build(path, options)
            for scope in () if isinstance(made, NoPruner) else made.traits.scopes:
                name = "-".join([path.stem, *(f"{key}={value}" for key, value in options.items()), scope])
                yield pytest.param(path, options, scope, id=name)


def prompt_of(rows, cameras, count):
    spans = {f"c{index}": (3 + index * count, 3 + (index + 1) * count) for index in range(cameras)}
    length = 3 + cameras * count + TEXT
    return Prompt.build([TokenMap.from_spans(spans, length)] * rows, length, None, [str(row) for row in range(rows)])


def layer(device, generator):
    """A decoder layer's parts that methods look at."""
    weights = {name: device.put(torch.randn(WIDTH, WIDTH, generator=generator)) for name in ("q", "k")}
    attention = SimpleNamespace(head_dim=WIDTH // HEADS, scaling=0.3)
    attention.q_proj, attention.k_proj = (lambda states, name=name: states @ weights[name] for name in weights)
    return SimpleNamespace(input_layernorm=torch.nn.Identity(), self_attn=attention)


def waits(pruner, rows, cameras, count, k):
    """Makes a cut on a pretended device; returns what the host waited for in selecting and in cutting."""
    generator = torch.Generator().manual_seed(0)
    prompt = prompt_of(rows, cameras, count)
    pools = prompt.pools(pruner.scope)
    budgets = [k * len(pool.cameras) for pool in pools]

    def random(*shape):
        return device.put(torch.randn(*shape, generator=generator))

    with Device() as device:
        hidden = random(rows, prompt.length, WIDTH)
        rotary = tuple(random(1, prompt.length, WIDTH // HEADS) for _ in range(2))
        visual = cameras * count
        seen = context(
            before=LayerView(layer(device, generator), hidden, rotary),
            at=LayerView(layer(device, generator), hidden, rotary),
            embeddings_BPD=hidden,
            prompt_BPD=hidden,
            question_BP=device.put(prompt.question_BP),
            vision=lambda: VisionTokens(
                [random(visual).abs() for _ in range(rows)],
                *([random(visual, WIDTH) for _ in range(rows)] for _ in range(2)),
            ),
        )
        picks = select_tokens(pruner, hidden, pools, budgets, seen)
        selecting = +device.waits
        device.waits.clear()
        kept_BK, real_BK = pad_left(kept_positions(torch.Size([rows, prompt.length]), None, pools, picks))
        cut = Cut.at(1, kept_BK, real_BK, hidden.device)
        states = gather(hidden, cut.kept_BK)
        after = remaining_pools(pools, picks, cut)
        if pruner.traits.merges_tokens:
            write_merged(states, cut, after, picks)
    return selecting, +device.waits


@pytest.mark.parametrize(("path", "options", "scope"), methods())
def test_waits_grow_with_nothing(path, options, scope):
    pruner = build(path, options)
    pruner.scope = scope
    assert waits(pruner, **LARGER) == waits(pruner, **SMALL)


@pytest.mark.parametrize("pool", ["joint", "radius"])
def test_sharing_a_budget_waits_as_often_for_more_tokens(pool):
    rule = BudgetRule(Dynamic(keep=0.25, pool=pool), "nearest", "final", 4)
    counted = []
    for rows, cameras, count in ((2, 2, 36), (4, 2, 36), (2, 4, 36), (2, 2, 144)):
        prompt = prompt_of(rows, cameras, count)
        pools = prompt.pools("per_camera")
        with Device() as device:
            hidden = device.put(torch.randn(rows, prompt.length, WIDTH, generator=torch.Generator().manual_seed(0)))
            rule.allocate(hidden, pools, TFPS(), rule.nominal(pools, TFPS()))
        counted.append(+device.waits)
    assert counted == counted[:1] * 4


def test_the_pretended_device_sees_what_cuda_waits_for():
    with Device() as device:
        tokens = device.put(torch.arange(6.0))
        mask = tokens > 2
        for wait in (
            lambda: int(tokens[0]),
            lambda: bool(mask.any()),
            lambda: tokens.cpu(),
            lambda: tokens[mask],
            lambda: mask.nonzero(),
            lambda: tokens[torch.tensor([1, 2])],
            lambda: torch.zeros(3).to(tokens.device),
        ):
            device.waits.clear()
            wait()
            assert device.waits.total() == 1
        device.waits.clear()
        tokens[mask] = 0
        tokens.masked_fill(mask, 1).double().sort()
        assert device.waits.total() == 0
        with pytest.raises(AssertionError, match="two devices"):
            tokens + torch.zeros(6)
