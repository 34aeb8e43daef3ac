"""Files and folders."""

import json
import os
import warnings
from typing import Any

from PIL import Image

from core.errors import InputError
from core.files import atomic_write


def mkdir_if_missing(dirname: str | os.PathLike) -> None:
    """Make a folder and those above it; nothing happens to one that is there."""
    os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath: str) -> bool:
    """Whether ``fpath`` is a file; warns if not."""
    found = os.path.isfile(fpath)
    if not found:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return found


def listdir_nohidden(path: str, sort: bool = False) -> list[str]:
    """Names in a folder that do not start with a dot."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def read_json(fpath: str) -> Any:
    """What a JSON file holds."""
    with open(fpath, encoding="utf-8") as file:
        return json.load(file)


def write_json(obj: Any, fpath: str) -> None:
    """Write a JSON file, complete or not at all."""
    with atomic_write(fpath) as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


def read_image(path: str) -> Image.Image:
    """Read an image as RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if the file is not an image, or a broken one.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'No file exists at "{path}"')
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise InputError(f'"{path}" is not a readable image: {error}') from error
