"""MiniDrive's trained model, which comes with the package."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from prune2drive.errors import InputError, check_choice
from prune2drive.minidrive.clip_questions import CLIP_KINDS
from prune2drive.minidrive.questions import QUESTION_KINDS, VERSION, VERSIONS
from prune2drive.models.llava_onevision import LlavaOnevision
from prune2drive.models.prompts import Prompts
from prune2drive.sample import Sample

log = logging.getLogger(__name__)

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def packaged(version: int = VERSION) -> Path:
    """Returns the folder of a model that comes with the package.

    Args:
        version: the version of MiniDrive that the model was trained for.

    Raises:
        InputError: there is no such version, or this installation lacks its weights.
    """
    check_choice("model.version", version, VERSIONS)
    folder = CHECKPOINTS / str(version)
    if not (folder / "model.safetensors").is_file():
        raise InputError(
            f"model.version={version}: this installation has no such trained model; train one with `python run.py "
            "task=train model=minidrive`, or task=train_minidrive2, and name its folder as model.checkpoint=, or use "
            "model=tiny"
        )
    return folder


class MiniDriveModel(LlavaOnevision):
    """Adapts a small LLaVA-OneVision that answers MiniDrive's questions.

    Args:
        checkpoint: folder that training wrote; the packaged checkpoint of `version` by default.
        dtype: data type of the weights; `auto` takes the checkpoint's, bfloat16, where the CPU computes in it, and
            float32 elsewhere: a CPU that has to imitate bfloat16 takes several times as long.
        attention: `sdpa` or `eager`.
        resolution: width and height in pixels that images are brought to; the checkpoint's by default.
        version: version of MiniDrive that the packaged checkpoint was trained for.

    Raises:
        InputError: the checkpoint does not exist or is damaged, or there is no such version.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        dtype: str = "auto",
        attention: str = "sdpa",
        resolution: int | None = None,
        version: int = VERSION,
    ) -> None:
        source = Path(checkpoint) if checkpoint else packaged(version)
        if dtype == "auto" and not has_bfloat16():
            dtype = "float32"
        folder = str(source.expanduser().absolute())
        super().__init__(folder, dtype=dtype, attention=attention, resolution=resolution)
        self._warned_of_size = False
        self._unlearned = set() if checkpoint else {*QUESTION_KINDS, *CLIP_KINDS} - {*VERSIONS[version]}

    def collate_texts(self, samples: Sequence[Sample], texts: Sequence[str]) -> Prompts:
        """Makes the inputs of prompts; warns once of images that have to be resized and of questions never learned."""
        side = self.config.vision_config.image_size
        sizes = {image.size for sample in samples for image in sample.images.values()} - {(side, side)}
        if sizes and not self._warned_of_size:
            self._warned_of_size = True
            width, height = min(sizes)
            log.warning("the model reads %d x %d pixels: images of %d x %d are resized", side, side, width, height)
        if strange := sorted({str(sample.kind) for sample in samples} & self._unlearned):
            self._unlearned = set()
            log.warning(
                "the packaged model was not trained on questions of kind %s and will answer them wrong: "
                "choose model and dataset of one version, and no clips",
                ", ".join(strange),
            )
        return super().collate_texts(samples, texts)


def has_bfloat16() -> bool:
    """Returns whether the CPU has instructions that compute in bfloat16; False where torch is too old to tell."""
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
