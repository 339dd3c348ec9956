"""Lets vLLM answer exported prompts, and says how many of its answers are ours.

    python run.py task=export pruner=divprune ratios.keep=0.1 task.answers=true full=true hydra.run.dir=out
    python examples/serve_with_vllm.py out    # in an environment with vLLM; needs nothing else of ours

With `full=true` the export has the prompts with all tokens too.
"""

import argparse
import json
from pathlib import Path
from typing import Any


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the entries of an export that were answered, and their prompts as vLLM takes them."""
    from safetensors.torch import load_file

    lines = (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["answer"] is not None]
    return entries, [{"prompt_embeds": load_file(folder / entry["file"])["prompt_embeds"]} for entry in entries]


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer exported prompts in vLLM and compare.")
    parser.add_argument("folder", type=Path, help="run folder of an export with task.answers=true")
    folder = parser.parse_args().folder

    from transformers import PreTrainedTokenizerFast
    from vllm import LLM, SamplingParams

    decoder = folder / "decoder"
    dtype = json.loads((decoder / "config.json").read_text())["dtype"]  # vLLM would read float32 as bfloat16
    limit = json.loads((folder / "run.json").read_text())["config"]["generation"]["max_new_tokens"]
    server = LLM(str(decoder), dtype=dtype, enable_prompt_embeds=True, enforce_eager=True)
    greedy = SamplingParams(temperature=0, max_tokens=limit)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(decoder)  # vLLM takes that of any Qwen2 decoder for Qwen's own
    for name, part in {"all tokens": folder / "full", "pruned": folder}.items():
        if not (part / "prompts.jsonl").exists():
            continue
        entries, prompts = read(part)
        found = [output.outputs[0].token_ids for output in server.generate(prompts, greedy)]
        answers = [text.strip() for text in tokenizer.batch_decode(found, skip_special_tokens=True)]
        for entry, answer in zip(entries, answers, strict=True):
            if answer != entry["answer"]:
                print(f"{entry['id']}: ours {entry['answer']!r}, vLLM's {answer!r}")
        equal = sum(answer == entry["answer"] for entry, answer in zip(entries, answers, strict=True))
        tokens = sum(entry["tokens"] for entry in entries) / len(entries)
        print(f"{name}: {equal} of {len(entries)} answers are equal, {tokens:.1f} tokens a prompt")


if __name__ == "__main__":
    main()
