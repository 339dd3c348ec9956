"""MiniDrive's trained model, as it comes with the package."""

from __future__ import annotations

from pathlib import Path

from prune2drive.errors import InputError
from prune2drive.models.llava_onevision import LlavaOnevision

PACKAGED = Path(__file__).parent / "checkpoint"


class MiniDriveModel(LlavaOnevision):
    """A small LLaVA-OneVision that answers MiniDrive's questions.

    Args:
        checkpoint: a folder that training wrote; by default the packaged one.
        dtype: of the weights; `auto` takes the checkpoint's, bfloat16.
        attention: `sdpa` or `eager`.

    Raises:
        InputError: no such checkpoint, or a damaged one.
    """

    def __init__(self, checkpoint: str | None = None, dtype: str = "auto", attention: str = "sdpa") -> None:
        if checkpoint is None and not (PACKAGED / "config.json").is_file():
            raise InputError(
                "model=minidrive: this version comes without a trained model; train one with `python run.py task=train "
                "model=minidrive` and name its folder as model.checkpoint=, or use model=tiny"
            )
        super().__init__(str(Path(checkpoint or PACKAGED).expanduser().absolute()), dtype=dtype, attention=attention)
