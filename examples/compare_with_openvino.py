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
from itertools import chain, product
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


def ours(folder: Path) -> None:
    """Writes prompts, their images, what is kept of each image and the answers."""
    import torch
    from tiny_qwen import write_checkpoint

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


def their_answers(model: Path, folder: Path, split: str, weight: float, dropped: int, count: int) -> list[list[int]]:
    """Returns the first tokens of the answers of an exported model.

    Args:
        model: the export.
        folder: folder of the prompts and their images.
        split: CDPRUNER_SPLIT_THRESHOLD, which is read when a pipeline first prunes.
        weight: weight of the relevance.
        dropped: percentage to drop of each image.
        count: number of tokens.
    """
    import numpy as np
    import openvino as ov
    import openvino_genai as genai
    from PIL import Image

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

    os.environ["CDPRUNER_SPLIT_THRESHOLD"] = split
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    pipe = genai.VLMPipeline(str(model), "CPU", ATTENTION_BACKEND="SDPA", **exact)
    config = genai.GenerationConfig(max_new_tokens=count, min_new_tokens=count, ignore_eos=True)
    config.apply_chat_template = False
    config.pruning_ratio, config.relevance_weight = dropped, weight
    answers = []
    for entry in read_prompts(folder):
        images = [np.asarray(Image.open(folder / name).convert("RGB")) for name in entry["images"]]
        tokens = Tokens()
        shown = [ov.Tensor(image[None]) for image in images]
        pipe.generate(entry["prompt"], images=shown, generation_config=config, streamer=tokens)
        answers.append(tokens.found)
    return answers


def read_prompts(folder: Path) -> list[dict[str, Any]]:
    """Returns what `ours` wrote of each prompt."""
    return [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]


def theirs(folder: Path) -> None:
    """Lets OpenVINO GenAI keep and answer, and says what is equal; all of it goes to theirs.json too."""
    entries, export = read_prompts(folder), folder / "openvino"
    rows, cols = entries[0]["grid"]
    whole = their_answers(export, folder, "1", 0.5, 0, NEW_TOKENS)
    equal = sum(entry["all"] == answer for entry, answer in zip(entries, whole, strict=True))
    print(f"all tokens: {equal} of {len(entries)} answers are equal")
    found: dict[str, Any] = {"all": whole}
    for (name, setting), dropped in product(SETTINGS.items(), DROPPED):
        expected = [entry[f"{name}, {dropped}"] for entry in entries]
        budget = len(expected[0]["kept"][0])
        probe = folder / f"probe-{budget}"
        if not probe.exists():
            write_probe(export, probe, entries[0], budget)
        options = (folder, setting["split"], setting["weight"], dropped)
        spoken = their_answers(probe, *options, 2 * len(entries[0]["starts"]) * (budget + 1))
        all_kept = [kept_of(said, budget, rows, cols) for said in spoken]
        answers = their_answers(export, *options, NEW_TOKENS)
        found[f"{name}, {dropped}"] = {"kept": all_kept, "answers": answers}
        mine = [kept for entry in expected for kept in entry["kept"]]
        pairs = list(zip(mine, chain(*all_kept), strict=True))
        same = sum(one == other for one, other in pairs)
        shared = sum(len({*one} & {*other}) for one, other in pairs) / len(pairs) / budget
        equal = sum(entry["answer"] == answer for entry, answer in zip(expected, answers, strict=True))
        print(
            f"{name}, {dropped} % dropped: {budget} of {rows * cols} tokens of {same} of {len(pairs)} images are the "
            f"same, {shared:.1%} of all; {equal} of {len(entries)} answers are equal"
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
