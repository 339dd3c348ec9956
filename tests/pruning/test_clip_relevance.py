"""CDPruner's relevance by CLIP, on a tiny LLaVA and the tiny CLIP that its vision tower was taken from."""

import pytest
import torch
from helpers import families, originals, runs, stock
from helpers.families import CAMERAS, TOKENS, VISION
from helpers.reference import by_the_determinant, kernel
from transformers import CLIPConfig, CLIPModel

from prune2drive.errors import InputError
from prune2drive.pruning import CDPruner, Staged, prune
from prune2drive.pruning.clip_relevance import Clip
from prune2drive.pruning.ratios import Uniform
from prune2drive.pruning.surgery.checks import validate
from prune2drive.tasks import evaluate

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]
QUESTIONS = ["what is the car ?", " ".join(["is the van near the car and"] * 2)]
LENGTH, BUDGET = 6, 5  # positions of a segment, tokens kept a camera


def save(folder, width=VISION["hidden_size"], **tower):
    tokenizer = originals.words_tokenizer(["<s>", "</s>"], None, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(folder)
    tower = {**VISION, **tower, "hidden_size": width}
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "hidden_size": 12}
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CLIPConfig(text_config=text, vision_config={**tower, "image_size": 28, "patch_size": 7}, projection_dim=10)
    torch.manual_seed(3)
    originals.lively(CLIPModel(config)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def family(clip):
    """LLaVA with the checkpoint's own vision tower."""
    family = families.make("llava")
    whole = CLIPModel.from_pretrained(clip)
    family.model.base_model.vision_tower.load_state_dict(whole.vision_model.state_dict())
    return family


@torch.no_grad()
def slow_scores(clip, patches_ND, question):
    """Of each patch by the formulas, segment by segment, word positions one by one."""
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), Clip(clip)._tokenizer
    ids = tokenizer(question)["input_ids"]
    seen = [1] * len(ids)
    while len(ids) % LENGTH:
        ids, seen = [*ids, 0], [*seen, 0]
    images = model.visual_projection(model.vision_model.post_layernorm(patches_ND))
    total = torch.zeros(len(patches_ND))
    starts = range(0, len(ids), LENGTH)
    for start in starts:
        part = slice(start, start + LENGTH)
        text = model.text_model(torch.tensor([ids[part]]), attention_mask=torch.tensor([seen[part]])).pooler_output
        total += torch.cosine_similarity(images, model.text_projection(text), dim=1)
    return -total / len(starts), len(starts)


@torch.no_grad()
def shown(family, inputs):
    """What the tower's second last layer and the projector make of each camera's patches, [I, N, D]."""
    out = family.model.base_model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
    patches = out.hidden_states[-2][:, 1:]
    return patches, family.model.base_model.multi_modal_projector(patches)


@pytest.mark.parametrize("span", ["pool", "sample"])
def test_equals_the_determinant_by_the_formulas(family, clip, span):
    inputs, pruner = family.inputs(TEXTS), CDPruner(relevance="clip", clip=clip, span=span)
    with prune(family.model, pruner, BUDGET / TOKENS, questions=QUESTIONS, **family.naming(TEXTS)) as trace:
        family.model(**inputs)
    patches, tokens = shown(family, inputs)
    segments = set()
    for row, question in enumerate(QUESTIONS):
        mine = slice(row * len(CAMERAS), (row + 1) * len(CAMERAS))
        scored = [slow_scores(clip, each, question) for each in patches[mine]]
        segments.add(scored[0][1])
        every = torch.cat([scores for scores, _ in scored])
        for camera, (scores, _), own in zip(CAMERAS, scored, tokens[mine], strict=True):
            among = scores if span == "pool" else every
            quality = (scores - among.min() + 1e-6) / (among.max() - among.min())
            expected = by_the_determinant(kernel(own.tolist(), quality.tolist()), BUDGET)
            assert trace.picked[row][camera].tolist() == expected
    assert segments == {1, 3}


def test_another_question_keeps_other_tokens_and_beams_share_theirs(family, clip):
    inputs, pruner = family.inputs(TEXTS[:1]), CDPruner(relevance="clip", clip=clip)
    kept = []
    for question in QUESTIONS:
        with prune(family.model, pruner, 0.3, cameras=CAMERAS, questions=[question]) as trace:
            family.model.generate(**inputs, num_beams=2, do_sample=False, max_new_tokens=2)
        kept.append(trace.positions[0].tolist())
        assert len(trace.positions) == 1 or torch.equal(*trace.positions)
    assert kept[0] != kept[1]


def test_without_a_question(family, clip):
    with prune(family.model, CDPruner(relevance="clip", clip=clip), 0.3, cameras=CAMERAS):
        with pytest.raises(InputError, match="pass questions="):
            family.model(**family.inputs(TEXTS[:1]))


@pytest.mark.parametrize("name", ["llava_onevision", "internvl", "qwen2_5_vl", "llama"])
def test_other_towers_are_refused_before_the_checkpoint_is_looked_for(name):
    config = families.make(name).model.config
    for pruner in (CDPruner(relevance="clip", clip="/nowhere"), Staged(pruner=CDPruner(relevance="clip", clip="/no"))):
        with pytest.raises(InputError, match="CLIP vision tower, .* use relevance=text"):
            validate(pruner, Uniform(), config)
    validate(CDPruner(), Uniform(), config)


def test_another_clip_is_refused(tmp_path):
    config = families.make("llava").model.config
    with pytest.raises(InputError, match="patches of width 8, the model's tower 16"):
        validate(CDPruner(relevance="clip", clip=save(tmp_path, width=8)), Uniform(), config)


def test_what_is_no_clip_is_refused(tmp_path):
    config = families.make("llava").model.config
    with pytest.raises(InputError, match="cannot be read as AutoConfig .* `hf download`"):
        validate(CDPruner(relevance="clip", clip=str(tmp_path)), Uniform(), config)
    save(tmp_path)
    config.vision_config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a clip_vision_model model: name a whole CLIP"):
        validate(CDPruner(relevance="clip", clip=str(tmp_path)), Uniform(), config)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"relevance": "words"}, "pruner.relevance=words: choose from text, prompt, clip"),
        ({"relevance": "clip"}, "relevance=clip takes the checkpoint"),
        ({"clip": "somewhere"}, "relevance=text takes none"),
    ],
)
def test_bad_options_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        CDPruner(**options)


@pytest.mark.slow
def test_a_run_gives_clip_every_question(tmp_path, monkeypatch):
    stock.save("llava", tmp_path / "llava")
    clip = save(tmp_path / "clip", width=originals.VISION["hidden_size"])
    asked, original = [], Clip.similarity
    monkeypatch.setattr(Clip, "similarity", lambda *args: asked.append(args[2]) or original(*args))
    model = ("model=llava_1_5_7b", f"model.checkpoint={tmp_path}/llava", "batch_size=2")
    pruner = ("pruner=cdpruner", "pruner.relevance=clip", f"pruner.clip={clip}", "dataset.size=4")
    evaluate.run(runs.configuration(f"folder={tmp_path}/run", *runs.SMALL, *model, *pruner))
    assert asked == [row.question for row in runs.rows(tmp_path / "run")] and len(set(asked)) > 1


def test_a_run_with_another_tower_ends_before_the_model_is_loaded(tmp_path):
    runs.Lively.loaded = 0
    with pytest.raises(InputError, match="use relevance=text"):
        runs.run(tmp_path, "pruner=cdpruner", "pruner.relevance=clip", "pruner.clip=somewhere")
    assert runs.Lively.loaded == 0
