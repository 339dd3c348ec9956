import resource
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig, LlavaForConditionalGeneration

from prune2drive.metrics.timing import Times, peak_memory_mb, reset_peak_memory, timed

TEXT = dict(
    vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, pad_token_id=0
)
NO_END = dict(do_sample=False, eos_token_id=None, pad_token_id=0)


@pytest.fixture
def llama():
    return LlamaForCausalLM(LlamaConfig(**TEXT)).eval()


@pytest.fixture
def llava():
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    config = LlavaConfig(vision_config=vision, text_config=LlamaConfig(**TEXT), image_token_id=5)
    return LlavaForConditionalGeneration(config).eval()


def ticks():
    """A clock that advances by a second at each reading: a phase lasts as long as it has forwards."""
    seconds = count()
    return lambda: float(next(seconds))


def hooks_of(model):
    return [(len(part._forward_pre_hooks), len(part._forward_hooks)) for part in model.modules()]


@pytest.mark.parametrize("batch", [1, 3])
def test_generate_is_one_prefill_and_a_step_for_each_further_token(llama, batch):
    with timed(llama, clock=ticks()) as times:
        llama.generate(torch.ones(batch, 4, dtype=torch.long), max_new_tokens=6, **NO_END)
    assert times == Times(vision=0, prefill=1, decode=5, decode_steps=5)


def test_all_generations_of_a_block_are_added_up(llama):
    with timed(llama, clock=ticks()) as times:
        for new_tokens in (1, 3):
            llama.generate(torch.ones(1, 4, dtype=torch.long), max_new_tokens=new_tokens, **NO_END)
    assert times == Times(prefill=2, decode=2, decode_steps=2)


def test_images_are_encoded_once_by_each_vision_module(llava):
    parts = [llava.model.vision_tower, llava.model.multi_modal_projector]
    prompt = torch.tensor([[1] + [5] * 4 + [2]])
    with timed(llava, parts, clock=ticks()) as times:
        llava.generate(prompt, pixel_values=torch.randn(1, 3, 28, 28), max_new_tokens=3, **NO_END)
    assert times == Times(vision=2, prefill=1, decode=2, decode_steps=2)


def test_a_forward_without_a_cache_is_a_prefill(llama):
    with timed(llama, clock=ticks()) as times:
        for _ in range(2):
            llama(torch.ones(1, 4, dtype=torch.long), use_cache=False)
    assert times == Times(prefill=2)


def test_hooks_already_on_the_decoder_are_measured(llama):
    now = 0.0

    def slow(*_):
        nonlocal now
        now += 7

    llama.model.register_forward_pre_hook(slow)
    with timed(llama, clock=lambda: now) as times:
        llama(torch.ones(1, 4, dtype=torch.long))
    assert times.prefill == 7


def test_nothing_is_left_behind(llava):
    parts = [llava.model.vision_tower, llava.model.multi_modal_projector]
    before = hooks_of(llava)
    with timed(llava, parts) as times:
        assert hooks_of(llava) != before
    assert hooks_of(llava) == before
    llava(torch.ones(1, 4, dtype=torch.long))
    assert times == Times()


def test_nothing_is_left_behind_by_a_failure(llama):
    before = hooks_of(llama)
    with pytest.raises(IndexError), timed(llama, clock=ticks()) as times:
        llama(torch.ones(1, 4, dtype=torch.long))
        llama(torch.full((1, 4), TEXT["vocab_size"]))
    assert hooks_of(llama) == before
    assert times == Times(prefill=1)


def test_a_failed_forward_does_not_count(llama):
    first = llama.model.layers[0]

    def fail(*_):
        raise KeyError

    with timed(llama, clock=ticks()) as times:
        hook = first.register_forward_pre_hook(fail)
        with pytest.raises(KeyError):
            llama(torch.ones(1, 4, dtype=torch.long))
        hook.remove()
        llama(torch.ones(1, 4, dtype=torch.long))
    assert times == Times(prefill=1)


@pytest.mark.parametrize(("device", "readings"), [("cpu", 0), ("cuda", 2)])
def test_the_device_is_synchronized_before_each_reading(llama, monkeypatch, device, readings):
    synchronized = []
    monkeypatch.setattr(torch.cuda, "synchronize", synchronized.append)
    monkeypatch.setattr(type(llama), "device", property(lambda _: torch.device(device)))
    with timed(llama):
        llama(torch.ones(1, 4, dtype=torch.long))
    assert synchronized == [torch.device(device)] * readings


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_knows_the_systems_unit(monkeypatch, platform, unit):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3_000_000))
    assert peak_memory_mb(torch.device("cpu")) == pytest.approx(3 * unit)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_is_at_least_what_this_process_used():
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert peak_memory_mb(torch.device("cpu")) >= 0.99 * int(peak.split()[1]) * 1024 / 1e6


def test_peak_memory_of_a_gpu_starts_at_the_reset(monkeypatch):
    gpu = torch.device("cuda:1")
    peaks = {gpu: 5_000_000}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update({device: 0}))
    reset_peak_memory(torch.device("cpu"))
    assert peaks == {gpu: 5_000_000} and peak_memory_mb(gpu) == 5
    reset_peak_memory(gpu)
    assert peak_memory_mb(gpu) == 0
