"""Reads DriveLMM-o1 (arXiv 2503.10621): questions to answer step by step about six views stitched into one picture.

The test file is a list or an object of items with `idx`, `image`, `question`, `final_answer` and `steps`. The pictures
are called `<scene>_<frame>.png`; `image` lists the six nuScenes photos of a picture.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from prune2drive.cameras import LAYOUT
from prune2drive.data.dataset import check_unique, fingerprint, multi_view_prompt
from prune2drive.data.images import check_files, inside, read_image
from prune2drive.data.subset import Subset
from prune2drive.errors import InputError, shortened
from prune2drive.files import field, kind_of, read_json
from prune2drive.mosaic import Mosaic
from prune2drive.sample import IMAGE_MARKER, Prediction, Sample

QUESTIONS = "DriveLMMo1_TEST.json"
PICTURES = "multiview_val"
INSTRUCTION = (
    "Answer the question about what is shown around the ego vehicle by reasoning step by step. Let every step follow "
    "from the ones before it, and say what in the images supports it. Write your answer in this form: "
    "Reasoning Steps: (your steps, one by one) Final Answer: (your answer alone)\nQuestion:"
)
HINT = "set dataset.images to the folder of stitched pictures, or dataset.nuscenes to the one that holds samples/"


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One question of the file.

    Args:
        files: the picture, or the cameras' photos in the layout's order; relative to the folder of images.
        fault: why the question cannot be shown.
    """

    id: str
    frame: str
    scene: str
    text: str
    answer: str | None
    steps: tuple[str, ...]
    files: tuple[str, ...] = ()
    fault: str = ""


class DriveLMMo1:
    """DriveLMM-o1's test file and its pictures; a `prune2drive.data.dataset.Dataset`.

    Args:
        root: folder of the question file.
        questions: question file, relative to `root`.
        images: folder of the stitched pictures; `root/multiview_val` by default.
        nuscenes: folder that holds nuScenes' `samples/`, to read the six photos instead of stitched pictures.
        layout: rows of camera names, from the top left of a picture.
        stitched: whether the prompt shows the six views as one picture, as in the benchmark, or as six images.
        prompt_file: text to put before the question instead of `INSTRUCTION`: a text file, or a Python file that sets
            a variable `prompt`, such as the benchmark's `evaluation/inference.py`.
        **subset: options of `Subset`, which chooses the questions.

    Raises:
        InputError: a file is missing, or not as the benchmark writes it.
    """

    def __init__(
        self,
        root: str | Path,
        questions: str | Path = QUESTIONS,
        images: str | Path | None = None,
        nuscenes: str | Path | None = None,
        layout: Sequence[Sequence[str]] = LAYOUT,
        stitched: bool = True,
        prompt_file: str | Path | None = None,
        **subset: Any,
    ) -> None:
        chosen = Subset.of(subset)
        folder = Path(root).expanduser()
        self.file = folder / questions
        if not self.file.is_file():
            raise InputError(f"{self.file}: no such file; set dataset.root and dataset.questions to the benchmark's")
        self.images = Path(nuscenes or images or folder / PICTURES).expanduser()
        self.mosaic, self.stitched = Mosaic(layout), stitched
        self.instruction = INSTRUCTION if prompt_file is None else _instruction(Path(prompt_file).expanduser())
        items = _read(self.file, self.mosaic.cameras if nuscenes else ())
        self._is_answered = any(item.answer is not None for item in items)
        places = chosen.choose([item.scene for item in items], self.file, [item.frame for item in items])
        self._items = [items[place] for place in places]
        self.ids = [item.id for item in self._items]
        self._decoded: tuple[tuple[str, ...], list[Image.Image]] | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.mosaic.cameras

    @cached_property
    def fingerprint(self) -> str:
        shown = (hashlib.sha256(self.instruction.encode()).hexdigest(), repr(self.mosaic.rows), str(self.stitched))
        return fingerprint((item.id, item.text, *item.files, *shown) for item in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        item = self._items[index]
        if fault := self._fault(item):
            raise InputError(fault)
        photos = self._photos(item.files)
        picture = photos[0] if len(photos) == 1 else None
        if picture:
            images, cells = self.mosaic.crop(picture), self.mosaic.pixels(picture.size)
            sizes = {camera: (x1 - x0, y1 - y0) for camera, (x0, y0, x1, y1) in cells.items()}
        else:
            images = dict(zip(self.cameras, photos, strict=True))
            sizes = {camera: image.size for camera, image in images.items()}
        return Sample(
            id=item.id,
            images=images,
            question=item.text,
            prompt=self._prompt(item.text),
            reference=item.answer,
            steps=item.steps,
            scene=item.scene,
            frame=item.frame,
            image_sizes=sizes,
            mosaic=self.mosaic if self.stitched else None,
            picture=picture if self.stitched else None,
        )

    def question(self, index: int) -> str:
        return self._items[index].text

    def row(self, index: int) -> Prediction:
        item = self._items[index]
        return Prediction(item.id, item.text, reference=item.answer, scene=item.scene, frame=item.frame)

    def frame(self, index: int) -> str:
        return self._items[index].frame

    def check(self) -> None:
        if faults := [fault for item in self._items if (fault := self._fault(item))]:
            raise InputError(f"{faults[0]} ({len(faults)} such questions; on_error=skip leaves them out)")
        files = [self.images / file for file in dict.fromkeys(file for item in self._items for file in item.files)]
        check_files(files, HINT)

    def _fault(self, item: Item) -> str:
        """Says why a question cannot be asked; answers count as missing only where the file has some."""
        if self._is_answered and item.answer is None:
            name = shortened(item.id)
            return f"{self.file}: question {name} has no final_answer, though others have; fill it in or remove it"
        return item.fault

    def _prompt(self, question: str) -> str:
        if self.stitched:
            return f"{self.instruction}\n{IMAGE_MARKER}\n{question.replace(IMAGE_MARKER, '[image]')}"
        return f"{self.instruction}\n{multi_view_prompt(self.cameras, question)}"

    def _photos(self, files: tuple[str, ...]) -> list[Image.Image]:
        """Reads the picture or the cameras' photos, and keeps those of the last frame for its other questions."""
        if self._decoded is None or self._decoded[0] != files:
            self._decoded = files, [read_image(self.images / file, HINT) for file in files]
        return self._decoded[1]


def _read(file: Path, cameras: Sequence[str]) -> list[Item]:
    content = read_json(file)
    if not isinstance(content, dict | list):
        raise InputError(f"{file}: expected a list of items or an object of them, found {kind_of(content)}")
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    items = [_item(entry, f"{file}: item {shortened(key)}", cameras) for key, entry in entries]
    if not items:
        raise InputError(f"{file}: holds no question")
    check_unique((item.id for item in items), file, "idx")
    return items


def _item(entry: Any, where: str, cameras: Sequence[str]) -> Item:
    name = field(entry, "idx", str, where)
    text = field(entry, "question", str, where).strip()
    if not text:
        raise InputError(f"{where}: field 'question' is empty; fill it in or remove the item")
    steps = entry.get("steps") or ""
    if not isinstance(steps, str):
        steps = "\n".join(map(str, field(entry, "steps", list, where)))
    frame = name.rpartition("_")[0] or name
    answer = field(entry, "final_answer", str, where, optional=True).strip() or None
    lines = tuple(line.strip() for line in steps.splitlines() if line.strip())
    image = entry.get("image")
    files, fault = _photos_of(image, cameras, where) if cameras else ((_picture_of(image, frame),), "")
    files = tuple(inside(path, where) for path in files)
    return Item(name, frame, frame.rpartition("_")[0], text, answer, lines, files, fault)


def _picture_of(image: Any, frame: str) -> str:
    return image if isinstance(image, str) and image else f"{frame}.png"


def _photos_of(image: Any, cameras: Sequence[str], where: str) -> tuple[tuple[str, ...], str]:
    """Returns the photos of the cameras, which their folders name, and what is wrong with them."""
    listed = image if isinstance(image, list) else []
    paths = [path.rpartition("nuscenes/")[2] for path in listed if isinstance(path, str)]
    by_camera = {Path(path).parent.name: path for path in paths}
    if missing := [camera for camera in cameras if camera not in by_camera]:
        return (), f"{where}: field 'image' lists no photo in a folder {missing[0]}; add it or remove the item"
    return tuple(by_camera[camera] for camera in cameras), ""


def _instruction(file: Path) -> str:
    """Reads the text of a prompt file, without its image marker."""
    try:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".py":
            text = _prompt_variable(text)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError) as error:
        raise InputError(f"dataset.prompt_file={file}: cannot be used ({error}); give a text file") from None
    return text.strip("\n").replace(IMAGE_MARKER, "")


def _prompt_variable(source: str) -> str:
    """Returns the text that Python source gives its variable `prompt`, without running it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "prompt" for to in node.targets):
            if isinstance(text := ast.literal_eval(node.value), str):
                return text
    raise ValueError("it sets no variable `prompt` to a text")
