"""Tasks for lmms-eval about pictures that MiniDrive draws, as files that need neither a network nor this package."""

import json
from pathlib import Path

from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.sample import IMAGE_MARKER, Sample

FUNCTIONS = '''
from PIL import Image


def images(doc):
    return [Image.open(file) for file in doc["images"]]


def text(doc):
    return doc["question"]


def messages(doc):
    """The question as MiniDrive asks it, its images at their places in the text."""
    texts, content = doc["prompt"].split("<image>"), []
    for part, image in zip(texts, images(doc)):
        content += [{"type": "text", "text": part}, {"type": "image", "url": image}]
    return [{"role": "user", "content": [*content, {"type": "text", "text": texts[-1]}]}]


def results(doc, found):
    return {"exact_match": float(found[0].strip() == doc["answer"])}
'''
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function functions.images
doc_to_text: !function functions.text
doc_to_target: answer
{more}
process_results: !function functions.results
generation_kwargs: {{max_new_tokens: 16, until: ["\\n"]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 0}}
"""


def samples(*cameras: str, count: int = 20) -> list[Sample]:
    """One question about each of so many frames, of different kinds; by default about all cameras."""
    dataset = MiniDrive(cameras=cameras or None)
    return [dataset[index * 11] for index in range(count)]


def write(folder: Path, name: str, shown: list[Sample], asks_as_minidrive: bool) -> None:
    """Writes a task and its pictures.

    Args:
        folder: lmms-eval's `--include_path`.
        asks_as_minidrive: whether the prompt is the sample's; else images come first, then the question.
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for index, sample in enumerate(shown):
        files = [folder / f"pictures/{name}_{index}_{camera}.png" for camera in sample.cameras]
        for file, image in zip(files, sample.images.values(), strict=True):
            image.save(file)
        rows.append(
            {
                "images": list(map(str, files)),
                "question": sample.question,
                "prompt": sample.prompt,
                "answer": sample.reference,
            }
        )
        assert sample.prompt.count(IMAGE_MARKER) == len(files)
    (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "functions.py").write_text(FUNCTIONS)
    more = "doc_to_messages: !function functions.messages" if asks_as_minidrive else ""
    (folder / f"{name}.yaml").write_text(TASK.format(name=name, folder=folder, more=more))
