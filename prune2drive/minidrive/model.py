"""MiniDrive's trained model, which comes with the package."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from prune2drive.errors import InputError
from prune2drive.models.llava_onevision import LlavaOnevision
from prune2drive.models.prompts import Prompts
from prune2drive.sample import Sample

log = logging.getLogger(__name__)

PACKAGED = Path(__file__).parent / "checkpoint"


class MiniDriveModel(LlavaOnevision):
    """Adapts a small LLaVA-OneVision that answers MiniDrive's questions.

    Args:
        checkpoint: folder that training wrote; the packaged checkpoint by default.
        dtype: data type of the weights; `auto` takes the checkpoint's, bfloat16, where the CPU computes in it, and
            float32 elsewhere: a CPU that has to imitate bfloat16 takes several times as long.
        attention: `sdpa` or `eager`.
        resolution: width and height in pixels that images are brought to; the checkpoint's by default.

    Raises:
        InputError: the checkpoint does not exist or is damaged.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        dtype: str = "auto",
        attention: str = "sdpa",
        resolution: int | None = None,
    ) -> None:
        if checkpoint is None and not (PACKAGED / "config.json").is_file():
            raise InputError(
                "model=minidrive: this installation has no trained model; train one with `python run.py task=train "
                "model=minidrive` and name its folder as model.checkpoint=, or use model=tiny"
            )
        if dtype == "auto" and not has_bfloat16():
            dtype = "float32"
        folder = str(Path(checkpoint or PACKAGED).expanduser().absolute())
        super().__init__(folder, dtype=dtype, attention=attention, resolution=resolution)
        self._resizes = False

    def collate_texts(self, samples: Sequence[Sample], texts: Sequence[str]) -> Prompts:
        """Makes the inputs of prompts; warns once where images have to be resized to the model's only resolution."""
        side = self.config.vision_config.image_size
        sizes = {image.size for sample in samples for image in sample.images.values()} - {(side, side)}
        if sizes and not self._resizes:
            self._resizes = True
            width, height = min(sizes)
            log.warning(
                "model=minidrive reads %d x %d pixels: images of %d x %d are resized", side, side, width, height
            )
        return super().collate_texts(samples, texts)


def has_bfloat16() -> bool:
    """Returns whether the CPU has instructions that compute in bfloat16; False where torch is too old to tell."""
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
