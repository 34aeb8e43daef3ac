"""DICOM files as images: which files they are, and what decides how they are shown.

The pixels are read in ``datasets/dicom_file.py``, which needs pydicom and is imported only when a
DICOM file is met.
"""

import functools
import importlib
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from PIL import Image

from core.errors import InputError, short

ENDINGS = (".dcm", ".dicom")
INSTALL = "pip install '.[dicom]'"
# Raised whenever the same file and setting would no longer give the same pixels.
FORMAT = 1

# Name -> (centre, width) in Hounsfield units: usual settings of CT.
# Source: Radiopaedia, "Windowing (CT)", https://radiopaedia.org/articles/windowing-ct
WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (50, 400),
    "bone": (400, 1800),
    "brain": (40, 80),
    "liver": (30, 150),
    "lung": (-600, 1500),
    "mediastinum": (50, 350),
}
WINDOW_ADVICE = (
    f"give '' for the file's own window, a name ({', '.join(WINDOWS)}), or the centre and the "
    "width, as in '40, 400'"
)
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TWO_NUMBERS = re.compile(rf"[(\[]?\s*({_NUMBER})(?:\s*,\s*|\s+)({_NUMBER})\s*[)\]]?")


def window_of(value: object) -> tuple[float, float] | None:
    """The (centre, width) that ``DATASET.WINDOW`` names; None for "", the file's own window.

    Raises:
        InputError: the value is neither a known name nor two numbers with a width above 0.
    """
    text = str(list(value) if isinstance(value, tuple) else value).strip()
    if not text:
        return None
    if text.lower() in WINDOWS:
        return WINDOWS[text.lower()]
    match = _TWO_NUMBERS.fullmatch(text)
    if not match or not 0 < float(match[2]) < 1e12 or not abs(float(match[1])) < 1e12:
        raise InputError(f"DATASET.WINDOW is {short(value)}; {WINDOW_ADVICE}")
    return float(match[1]), float(match[2])


@dataclass(frozen=True)
class Rendering:
    """What of a DICOM file is shown: ``DATASET.WINDOW`` and ``DATASET.FRAME``.

    Other image files do not depend on it.
    """

    window: str = ""
    frame: int = 1

    @property
    def is_default(self) -> bool:
        return self == Rendering()

    @property
    def in_hounsfield(self) -> bool:
        """Whether the window is one by name, which only CT values have."""
        return self.window.strip().lower() in WINDOWS

    @property
    def key(self) -> list[Any]:
        """What identifies it; two spellings of one window have the same key."""
        return [window_of(self.window), self.in_hounsfield, self.frame]


DEFAULT = Rendering()


def rendering_of(settings: Any) -> Rendering:
    """The rendering that ``cfg.DATASET`` asks for."""
    window = getattr(settings, "WINDOW", DEFAULT.window)
    return Rendering(str(window), getattr(settings, "FRAME", DEFAULT.frame))


Source = str | Path | bytes  # a file, or all that one holds


def readable(source: Source) -> str | Path | BinaryIO:
    """What a library that reads files takes, at the start of the file."""
    return io.BytesIO(source) if isinstance(source, bytes) else source


# Which files are DICOM


def is_named_dicom(path: str | Path) -> bool:
    """Whether a file's ending is that of a DICOM file."""
    return os.path.splitext(path)[1].lower() in ENDINGS


def is_marked_dicom(source: Source) -> bool:
    """Whether a file's bytes say that it is DICOM; some real files lack this mark.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return source[128:132] == b"DICM"
    with open(source, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_dicom(path: str | Path) -> bool:
    """Whether a file is a DICOM image by its ending or, if it has none, by its bytes.

    Archives name files IM000001 or by a UID such as 1.2.840.113619.2.5, so an ending that is a
    number is none. A DICOMDIR, the table of contents of a medium, is not an image.
    """
    ending = os.path.splitext(path)[1]
    if ending.lower() in ENDINGS:
        return True
    if (ending and not ending[1:].isdecimal()) or os.path.basename(path).upper() == "DICOMDIR":
        return False
    try:
        return is_marked_dicom(path)
    except OSError:
        return False


# Reading them


def read_dicom(
    source: Source, rendering: Rendering, check_size: Callable[[int, int], None]
) -> Image.Image:
    """A DICOM file as an 8-bit image: grey ("L") or RGB, without any of the file's header.

    Args:
        check_size: called with the width and the height before pixels are decoded.

    Raises:
        InputError: pydicom or a decoder is not installed, the file is broken or holds no image, or
            the rendering does not apply to it.
    """
    return reader().render(source, rendering, check_size)


@functools.cache
def reader() -> ModuleType:
    """The module that reads DICOM files.

    Raises:
        InputError: pydicom is not installed, or too old.
    """
    try:
        return importlib.import_module("datasets.dicom_file")
    except ImportError as error:
        if (error.name or "").split(".")[0] != "pydicom":
            raise
        raise InputError(
            f"a DICOM file, and reading it needs pydicom 3 or later; install it: {INSTALL}"
        ) from None
