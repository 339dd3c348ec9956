"""Reads the image files that a dataset names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

from PIL import Image

from prune2drive.errors import InputError, shortened

LONGEST_PATH = 500  # characters of an image's path that a message shows


def inside(path: str, where: str) -> str:
    """Returns an image path of a question file after checking that it stays in the folder of the images.

    Args:
        where: the place of the path in its file, for the message.

    Raises:
        InputError: the path is absolute or leads out of the folder.
    """
    parts = PurePosixPath(path.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts:
        raise InputError(f"{where}: image path '{shortened(path)}' leads out of the images' folder; name one below it")
    return path


def check_files(files: Collection[Path], hint: str) -> None:
    """Checks that all images are there.

    Args:
        hint: what to do where some are missing.

    Raises:
        InputError: images are missing: the first of them, and how many.
    """
    if missing := [file for file in files if not _is_file(file)]:
        first = shortened(str(missing[0]), LONGEST_PATH)
        raise InputError(f"{len(missing)} of {len(files)} images are missing, first {first}; {hint}")


def read_image(file: Path, hint: str) -> Image.Image:
    """Reads an image and converts it to RGB.

    Args:
        hint: what to do where the file is missing.

    Raises:
        InputError: the file is missing or damaged.
    """
    shown = shortened(str(file), LONGEST_PATH)
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{shown}: no such image; {hint}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{shown}: cannot be read as an image ({reason}); download it again") from None


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except (OSError, ValueError):  # a name that no file can have, such as one of 100,000 characters
        return False
