"""Compares CDPruner here with the one in OpenVINO GenAI: the tokens that both keep of each image, and their answers.

    python examples/compare_with_openvino.py ours out      # writes a tiny random Qwen2.5-VL, what it keeps and answers
    # the rest in an environment with optimum-intel, openvino-genai and Pillow; it needs nothing else of ours
    optimum-cli export openvino --model out/checkpoint --task image-text-to-text --weight-format fp32 out/openvino
    python examples/compare_with_openvino.py theirs out

OpenVINO does not say what it keeps. A decoder in the place of the exported one says it: its "answer" to a prompt is the
rows and columns among the position ids that it is given.
"""

import argparse
import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

QUESTIONS = 20
DROPPED = (75, 90)  # percent, as OpenVINO takes it
NEW_TOKENS = 8
SETTINGS: dict[str, dict[str, Any]] = {
    "both by default": {"ours": {}, "weight": 0.5, "split": "1"},
    "OpenVINO's rule": {
        "ours": {"relevance": "prompt", "relevance_weight": 0.5, "halves": True},
        "weight": 0.5,
        "split": "1",
    },
    "the authors' kernel": {"ours": {"relevance": "prompt"}, "weight": 1.0, "split": "0"},
}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def write_tokenizer(folder: Path, texts: list[str]) -> dict[str, int]:
    """Writes a byte-level BPE tokenizer made of some texts into a new folder; returns its vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": SPECIAL, "initial_alphabet": letters, "show_progress": False}
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, **options))
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    named |= {"additional_special_tokens": SPECIAL, "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    return tokenizer.get_vocab()


def write_checkpoint(folder: Path, texts: list[str]) -> None:
    """Writes a tiny random Qwen2.5-VL in the published layout, with a tokenizer made of some texts."""
    import torch
    import transformers as hf
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    ids = write_tokenizer(folder, texts)
    config = {
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": max(ids.values()) + 1,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "in_chans": 3,
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
        },
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config), encoding="utf-8")
    model = hf.Qwen2_5_VLForConditionalGeneration(hf.AutoConfig.from_pretrained(folder))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough for the logits to depend on every one of them
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else parameter + 0.1 * noise)
    model.save_pretrained(folder)
    file.write_text(json.dumps(config), encoding="utf-8")  # as older versions of transformers read it
    Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=28 * 28 * 1280).save_pretrained(folder)


def ours(folder: Path) -> None:
    """Writes prompts, their images, what is kept of each image and the answers."""
    import torch

    from prune2drive import prune
    from prune2drive.minidrive.dataset import PER_FRAME, MiniDrive
    from prune2drive.models.qwen_vl import QwenVL
    from prune2drive.pruning import CDPruner

    samples = MiniDrive(resolution=224)  # 64 tokens an image, which no image processor has to scale
    samples = [samples[index * (PER_FRAME + 1)] for index in range(QUESTIONS)]  # of a frame each
    write_checkpoint(folder / "checkpoint", [text for sample in samples for text in (sample.prompt, sample.question)])
    adapter = QwenVL(str(folder / "checkpoint"), dtype="float32")
    with open(folder / "prompts.jsonl", "w", encoding="utf-8") as lines:
        for index, sample in enumerate(samples):
            prompts = adapter.collate([sample])
            (token_map,) = prompts.token_maps
            images = []
            for camera, image in sample.images.items():
                images.append(f"{index}-{camera}.png")
                image.save(folder / images[-1])

            def answer(inputs: Any = prompts.inputs) -> list[int]:
                options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False}
                with torch.inference_mode():
                    return adapter.model.generate(**inputs, **options)[0, inputs["input_ids"].shape[1] :].tolist()

            entry: dict[str, Any] = {"id": sample.id, "prompt": adapter.chat(sample.prompt), "images": images}
            entry["starts"] = [int(token_map.positions(camera)[0]) for camera in token_map.cameras]
            entry["grid"] = [token_map.views[0].rows, token_map.views[0].cols]
            entry["all"] = answer()
            for name, setting in SETTINGS.items():
                for dropped in DROPPED:
                    method = CDPruner(**setting["ours"])
                    with prune(adapter.model, method, keep=1 - dropped / 100, cameras=list(sample.images)) as trace:
                        answers = answer()
                    kept = [indices.tolist() for indices in trace.kept[0].values()]
                    entry[f"{name}, {dropped}"] = {"kept": kept, "answer": answers}
            lines.write(json.dumps(entry) + "\n")


def write_probe(source: Path, folder: Path, entry: dict[str, Any], budget: int) -> None:
    """Writes a copy of an export whose decoder answers with rows and columns of position ids, two tokens a position.

    It speaks of the position before each image and of those of the image's kept tokens, image after image.

    Args:
        source: the export.
        folder: the copy's folder.
        entry: a prompt; all have their images at the same places.
        budget: tokens that are kept of each image.
    """
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    full = entry["grid"][0] * entry["grid"][1]
    starts = [start - index * (full - budget) for index, start in enumerate(entry["starts"])]
    places = [place for start in starts for place in range(start - 1, start + budget)]
    shutil.copytree(source, folder)
    decoder = ov.Core().read_model(source / "openvino_language_model.xml")
    width = decoder.output("logits").partial_shape[2].get_length()
    inputs = {}
    for given in decoder.inputs:
        name = given.any_name
        inputs[name] = ops.parameter(given.partial_shape, given.element_type, name=name)
        inputs[name].output(0).tensor.set_names({name})
    none = ops.constant(np.zeros((3, 1, 0, 1), np.float32))
    shape = ov.PartialShape([3, 1, -1, 1])
    before = ops.read_value(none, "positions", ov.Type.f32, shape)
    now = ops.unsqueeze(ops.convert(inputs["position_ids"], "f32"), ops.constant(np.int64(3)))
    seen = ops.concat([before, now], axis=2)
    calls = ops.read_value(ops.constant(np.zeros((1, 1, 1, 1), np.float32)), "calls", ov.Type.f32, [1, 1, 1, 1])
    keep_calls = ops.assign(ops.add(calls, ops.constant(np.float32(1))), "calls")
    step = ops.reshape(ops.convert(calls, "i64"), ops.constant(np.array([1])), special_zero=False)
    two = ops.constant(np.array([2]))
    last = ops.constant(np.array([len(places) - 1]))
    at = ops.gather(ops.constant(np.array(places)), ops.minimum(ops.divide(step, two), last), ops.constant(np.int64(0)))
    axis = ops.add(ops.floor_mod(step, two), ops.constant(np.array([1])))
    value = ops.gather(ops.gather(seen, axis, ops.constant(np.int64(0))), at, ops.constant(np.int64(2)))
    code = ops.reshape(ops.convert(value, "i64"), ops.constant(np.array([1, 1])), special_zero=False)
    logits = ops.one_hot(
        code, ops.constant(np.int64(width)), ops.constant(np.float32(9)), ops.constant(np.float32(0)), 2
    )
    # Sums of all other inputs, times zero: a decoder reads them.
    rest = ops.constant(np.float32(0))
    for name in set(inputs) - {"position_ids"}:
        total = ops.convert(inputs[name], "f32")
        total = ops.reduce_sum(total, ops.constant(np.arange(len(inputs[name].partial_shape))), keep_dims=False)
        rest = ops.add(rest, ops.multiply(total, ops.constant(np.float32(0))))
    result = ops.result(ops.add(logits, rest))
    result.output(0).tensor.set_names({"logits"})
    probe = ov.Model([result], [ops.assign(seen, "positions"), keep_calls], list(inputs.values()), "probe")
    (folder / "openvino_language_model.bin").unlink()
    ov.save_model(probe, folder / "openvino_language_model.xml", compress_to_fp16=False)


def kept_of(spoken: list[int], budget: int, rows: int, cols: int) -> list[list[int]]:
    """Returns the kept tokens of each image, from what a probe said of a prompt.

    Raises:
        SystemExit: OpenVINO kept another number of tokens than the budget.
    """
    import numpy as np

    points = np.array(spoken).reshape(-1, budget + 1, 2)
    inside = points[:, 1:] - points[:, :1] - 1  # rows and columns, from the position before the image
    if (inside < 0).any() or (inside >= [rows, cols]).any():
        raise SystemExit(f"OpenVINO keeps another number of tokens than {budget} of an image")
    kept: list[list[int]] = (inside[..., 0] * cols + inside[..., 1]).tolist()
    return kept


def theirs(folder: Path) -> None:
    """Lets OpenVINO GenAI keep and answer, and says what is equal; all of it goes to theirs.json too."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai
    from PIL import Image

    entries = [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    images = [
        [ov.Tensor(np.asarray(Image.open(folder / name).convert("RGB"))[None]) for name in entry["images"]]
        for entry in entries
    ]
    rows, cols = entries[0]["grid"]

    class Tokens(genai.StreamerBase):
        """Collects the tokens of an answer."""

        def __init__(self) -> None:
            super().__init__()
            self.found: list[int] = []

        def write(self, token: Any) -> Any:
            self.found += token if isinstance(token, list) else [token]
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    @cache
    def generate(model: Path, split: str, weight: float, dropped: int, count: int) -> list[list[int]]:
        os.environ["CDPRUNER_SPLIT_THRESHOLD"] = split  # read when a pipeline first prunes
        exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
        pipe = genai.VLMPipeline(str(model), "CPU", ATTENTION_BACKEND="SDPA", **exact)
        config = genai.GenerationConfig(max_new_tokens=count, min_new_tokens=count, ignore_eos=True)
        config.apply_chat_template = False
        config.pruning_ratio, config.relevance_weight = dropped, weight
        answers = []
        for entry, shown in zip(entries, images, strict=True):
            tokens = Tokens()
            pipe.generate(entry["prompt"], images=shown, generation_config=config, streamer=tokens)
            answers.append(tokens.found)
        return answers

    export, count = folder / "openvino", len(entries)
    whole = generate(export, "1", 0.5, 0, NEW_TOKENS)
    equal = sum(entry["all"] == answer for entry, answer in zip(entries, whole, strict=True))
    print(f"all tokens: {equal} of {count} answers are equal")
    found: dict[str, Any] = {"all": whole}
    for name, setting in SETTINGS.items():
        for dropped in DROPPED:
            expected = [entry[f"{name}, {dropped}"] for entry in entries]
            budget = len(expected[0]["kept"][0])
            probe = folder / f"probe-{budget}"
            if not probe.exists():
                write_probe(export, probe, entries[0], budget)
            options = (setting["split"], setting["weight"], dropped)
            length = 2 * len(entries[0]["starts"]) * (budget + 1)
            spoken = generate(probe, *options, length)
            all_kept = [kept_of(said, budget, rows, cols) for said in spoken]
            pairs = [
                (mine, kept)
                for entry, of_entry in zip(expected, all_kept, strict=True)
                for mine, kept in zip(entry["kept"], of_entry, strict=True)
            ]
            same = sum(mine == kept for mine, kept in pairs)
            shared = sum(len(set(mine) & set(kept)) for mine, kept in pairs) / len(pairs) / budget
            answers = generate(export, *options, NEW_TOKENS)
            found[f"{name}, {dropped}"] = {"kept": all_kept, "answers": answers}
            equal = sum(entry["answer"] == answer for entry, answer in zip(expected, answers, strict=True))
            print(
                f"{name}, {dropped} % dropped: {budget} of {rows * cols} tokens of {same} of {len(pairs)} images are "
                f"the same, {shared:.1%} of all; {equal} of {count} answers are equal"
            )
    (folder / "theirs.json").write_text(json.dumps(found), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare CDPruner with OpenVINO GenAI's.")
    parser.add_argument("side", choices=["ours", "theirs"], help="whose tokens and answers to compute")
    parser.add_argument("folder", type=Path, help="folder for all files; ours starts an empty one")
    options = parser.parse_args()
    {"ours": ours, "theirs": theirs}[options.side](options.folder)


if __name__ == "__main__":
    main()
