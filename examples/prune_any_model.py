"""Prunes a stock Hugging Face model with `prune()` and shows what is kept of six cameras.

    python examples/prune_any_model.py                                          # offline: the packaged model
    python examples/prune_any_model.py --keep 0.05 --picture kept_tokens.png    # draws the kept tokens
    python examples/prune_any_model.py --model llava-hf/llava-onevision-qwen2-0.5b-ov-hf    # needs torchvision

The cameras' images are drawn by MiniDrive, so no data set is needed.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from prune2drive import prune
from prune2drive.minidrive.architecture import build_processor
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.minidrive.model import packaged
from prune2drive.pruning import TFPS, Trace
from prune2drive.report.token_overlay import camera_sheet
from prune2drive.sample import IMAGE_MARKER, Sample


def load(checkpoint: str | None):
    """Returns a model and its processor, both stock: of a hub id or folder, or those that come with the package."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint or packaged(), dtype="auto").eval()
    return model, AutoProcessor.from_pretrained(checkpoint) if checkpoint else build_processor()


def chat(sample: Sample) -> list[dict]:
    """Returns the sample's prompt as a chat message, with an image part in the place of every image marker."""
    parts = []
    for text in sample.prompt.split(IMAGE_MARKER):
        parts += [{"type": "text", "text": text}, {"type": "image"}]
    return [{"role": "user", "content": parts[:-1]}]


def draw(question: int, trace: Trace, title: str) -> Image.Image:
    """Returns the cameras with their kept tokens outlined, on the same scene drawn with more pixels."""
    sample, token_map = MiniDrive(resolution=448)[question], trace.token_maps[0]
    return camera_sheet(
        {camera: (image, token_map.boxes(camera), trace.kept[0][camera]) for camera, image in sample.images.items()},
        title,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Prune a stock model and show what is kept.")
    parser.add_argument("--model", help="hub id or folder of a supported model (default: the packaged one)")
    parser.add_argument("--keep", type=float, default=0.1, help="keep ratio of every camera (default: 0.1)")
    parser.add_argument("--question", type=int, default=0, help="which of MiniDrive's test questions (default: 0)")
    parser.add_argument("--picture", type=Path, help="file to draw the kept tokens to")
    options = parser.parse_args()

    model, processor = load(options.model)
    sample = MiniDrive()[options.question]
    text = processor.apply_chat_template(chat(sample), tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[list(sample.images.values())], return_tensors="pt")
    inputs = inputs.to(model.device, model.dtype)

    def answer() -> str:
        with torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=32, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        return processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    print(f"question    {sample.question}\nreference   {sample.reference}\nall tokens  {answer()}")
    with prune(model, TFPS(layer=1), keep=options.keep, cameras=list(sample.images)) as trace:
        print(f"pruned      {answer()}")
    print(f"kept {trace.kept_tokens[0]} of {trace.full_tokens[0]} visual tokens:")
    for camera, indices in trace.kept[0].items():
        print(f"  {camera:16} {indices.tolist()}")
    if options.picture:
        title = f"T-FPS keeps {trace.kept_tokens[0]} of {trace.full_tokens[0]} visual tokens"
        sheet = draw(options.question, trace, title).reduce(2)
        sheet.quantize(dither=Image.Dither.NONE).save(options.picture, optimize=True)


if __name__ == "__main__":
    main()
