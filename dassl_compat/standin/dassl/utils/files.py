"""Files and folders."""

import json
import os
import urllib.request
import warnings

from PIL import Image, UnidentifiedImageError

from core.errors import InputError
from core.files import atomic_write


def mkdir_if_missing(dirname):
    os.makedirs(dirname, exist_ok=True)


def check_isfile(fpath):
    """Whether ``fpath`` is a file; warns if not."""
    found = os.path.isfile(fpath)
    if not found:
        warnings.warn(f'No file found at "{fpath}"', stacklevel=2)
    return found


def listdir_nohidden(path, sort=False):
    """Names in a folder that do not start with a dot."""
    names = [name for name in os.listdir(path) if not name.startswith(".")]
    return sorted(names) if sort else names


def read_json(fpath):
    with open(fpath, encoding="utf-8") as file:
        return json.load(file)


def write_json(obj, fpath):
    with atomic_write(fpath) as file:
        json.dump(obj, file, indent=4, separators=(",", ": "))


def read_image(path):
    """Read a picture as RGB.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if the file is no picture, or a broken one.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f'No file exists at "{path}"')
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f'"{path}" is not a readable picture: {error}') from error


def download_url(url, dst):
    """Download ``url`` to the file ``dst``, which appears only once it is whole."""
    print(f'Downloading from "{url}" to "{dst}"')
    with urllib.request.urlopen(url) as answer, atomic_write(dst, "wb") as file:
        while chunk := answer.read(1 << 20):
            file.write(chunk)
