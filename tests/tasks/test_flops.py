"""`python run.py task=flops`: from a configuration to tokens, FLOPs and cache."""

import json
import resource

import pytest
import torch
from helpers import originals, runs, stock

from prune2drive.errors import InputError
from prune2drive.models.conversion.llava_next import LlavaNext
from prune2drive.models.internvl import InternVL
from prune2drive.models.llava_onevision import LlavaOnevision
from prune2drive.pruning.methods.tfps import TFPS
from prune2drive.pruning.surgery.prune import prune
from prune2drive.tasks import flops

pytestmark = pytest.mark.slow  # whole runs


LAYOUT = "task.layout=[[CAM_FRONT_LEFT,CAM_FRONT,CAM_FRONT_RIGHT],[CAM_BACK_RIGHT,CAM_BACK,CAM_BACK_LEFT]]"


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def table(folder, *overrides):
    ratio = flops.run(runs.configuration(f"folder={folder}", "task=flops", "pruner=tfps", *overrides))
    found = json.loads((folder / "flops.json").read_text())
    assert ratio == found["rows"][-1]["ratio"]
    return found


def decoder(tokens, d, ffn, heads, kv_heads):
    """METHODS' cost of one layer: projections with grouped queries, the attention square, a gated MLP."""
    size = d // heads
    return 2 * tokens * (2 * d * d + 2 * d * kv_heads * size + 2 * tokens * d + 3 * d * ffn)


def test_drivemm_as_published_is_counted_without_its_weights(tmp_path):
    """The paper's 13.4 % within half a point, from 729 tokens a camera and Llama-3.1-8B.

    Seven billion weights in this process would not go unnoticed.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = table(tmp_path, "model=drivemm")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB
    assert torch.get_default_device().type == "cpu"
    assert found["model"] == "drivemm (published shape)"
    full, quarter, tenth = found["rows"]
    assert (full["visual"], full["kept"], quarter["kept"], tenth["kept"]) == (4374, 4374, 6 * 182, 6 * 73)
    assert (tenth["text"], tenth["newlines"]) == (120, 6)
    per_layer = [decoder(n + 126, 4096, 14336, 32, 8) for n in (4374, 438)]
    assert full["prefill"] == 32 * per_layer[0] and tenth["prefill"] == per_layer[0] + 31 * per_layer[1]
    assert tenth["ratio"] == pytest.approx(0.134, abs=0.005)
    assert full["kv_bytes"] == 32 * 2 * 8 * 128 * 2 * 4500


@pytest.mark.parametrize(("options", "visual", "kept"), [((), 1536, 156), ((LAYOUT,), 256, None)])
def test_drivelmm_o1_as_published(options, visual, kept, tmp_path):
    found = table(tmp_path, "model=drivelmm_o1", "task.text=160", *options)["rows"]
    assert found[0]["visual"] == visual and found[-1]["kept"] == (kept or pytest.approx(visual / 10, abs=3))
    if kept:
        assert found[-1]["ratio"] == pytest.approx(0.203, abs=0.005)


def test_a_checkpoint_that_is_there_goes_before(tmp_path):
    stock.save("internvl", tmp_path / "m")
    found = table(tmp_path, "model=drivelmm_o1", f"model.checkpoint={tmp_path}/m", "task.image=[56,56]")
    assert found["model"] == str(tmp_path / "m") and found["rows"][0]["visual"] == 6 * 4


def test_text_is_counted_with_the_checkpoint_s_tokenizer(tmp_path):
    stock.save("internvl", tmp_path / "m")
    options = ("model=internvl3_1b", f"model.checkpoint={tmp_path}/m", "task.text=null")
    short, long = (
        table(tmp_path, *options, f"task.question={question}")["rows"][0]["text"]
        for question in ("what", "what is what")
    )
    assert long == short + 2


def test_kept_tokens_are_those_a_run_keeps(tmp_path):
    stock.save("llava_onevision", tmp_path / "m")
    found = table(tmp_path, "model=llava_onevision", f"model.checkpoint={tmp_path}/m", "task.keep=[0.3]")["rows"][0]
    adapter = LlavaOnevision(str(tmp_path / "m"))
    sample = flops._sample(runs.configuration(f"folder={tmp_path}", "task=flops").task)
    prompts = adapter.collate([sample])
    with prune(adapter.model, TFPS(layer=1), keep=0.3, token_map=prompts.token_maps) as trace:
        adapter.generate(prompts, max_new_tokens=1, do_sample=False)
    assert trace.kept_tokens == [found["kept"]] and trace.full_tokens == [found["visual"]]
    assert trace.select_flops[0] == found["selection"]


def test_a_shape_has_no_weights():
    published = {"model_type": "llava_llama"} | originals.TEXT | {"vocab_size": 50, "mm_vision_tower": "x"}
    published |= {"mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad"}
    shape = LlavaNext("published shape", originals.VISION, settings=published)
    with pytest.raises(InputError, match="a shape without weights; name a checkpoint as model.checkpoint="):
        shape.load()
    with pytest.raises(InputError, match="model.checkpoint=null: name a folder or an id"):
        InternVL(None)


def test_without_a_published_shape(tmp_path):
    with pytest.raises(InputError, match="InternVL3-1B-hf: neither a folder nor in the local cache"):
        table(tmp_path, "model=internvl3_1b")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("task.keep=[]", "task.keep=.*give one or more ratios"),
        ("task.keep=[0.5,1.5]", "task.keep=.*give one or more ratios"),
        ("task.text=0", "task.text=0: use a whole number"),
        ("pruner.layer=5", "pruner.layer=5: the model's decoder has layers 0 to 3"),
        ("task.layout=[[A,A]]", "name each camera once"),
        ("shard=1/2", "^shard=1/2: task=flops has no use for it; leave shard out$"),
    ],
)
def test_impossible_options(option, message, tmp_path):
    with pytest.raises(InputError, match=message):
        table(tmp_path, option)


@pytest.mark.parametrize(("value", "shown"), [(73_400_000_000_000, "73.4 T"), (12, "12"), (589_824_000, "590 M")])
def test_metric_prefixes(value, shown):
    assert flops.metric_prefix(value) == shown
