"""Image files that a dataset names: none outside its folder, all decoded with the file in the error."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from PIL import Image

from prune2drive.errors import InputError


def inside(path: str, where: str) -> str:
    """A path that a question file gives, if it stays in the folder of the images.

    Raises:
        InputError: it is absolute or climbs out of the folder.
    """
    parts = PurePosixPath(path.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{where}: image path {path!r} leads out of the images' folder; name a file below it")
    return path


def check_files(files: Collection[Path], hint: str) -> None:
    """Looks whether all images are there.

    Raises:
        InputError: the first that is missing, and how many are; `hint` says what to do.
    """
    if missing := [file for file in files if not file.is_file()]:
        raise InputError(f"{len(missing)} of {len(files)} images are missing, first {missing[0]}; {hint}")


def read_image(file: Path, hint: str) -> Image.Image:
    """A decoded RGB image.

    Args:
        hint: what to do where the file is missing.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{file}: no such image; {hint}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: cannot be read as an image ({error}); download it again") from None
