"""Pictures from files: every mode to the right RGB, and broken files found before training."""

import contextlib
import functools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from core.errors import InputError
from core.files import atomic_write, fingerprint

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")
# Below this many, the first check takes no time worth announcing.
_MANY = 1000


def read_picture(path, keep_grey=False):
    """Read a picture file as 8-bit RGB, upright; with ``keep_grey``, 8-bit grey as it is.

    Grey becomes three equal channels; 16-bit grey is scaled from its whole range (0 to 65535), so
    pictures compare with each other; transparent pixels become black, the colour around a
    dermatoscope's field and outside an X-ray's collimator, which adds nothing to what is shown.

    Raises:
        InputError: the file is missing, broken or cut short, or its values have no known range.
    """
    with _opened(path) as picture:
        picture = _upright(picture)
        if keep_grey and picture.mode == "L" and "transparency" not in picture.info:
            picture.load()
            return picture
        return to_rgb(picture)


def _check_picture(path):
    """Raise what ``read_picture`` would, at a fraction of its cost for a JPEG.

    Decoding at an eighth of the size still reads the whole compressed stream.
    """
    with _opened(path) as picture:
        picture.draft(picture.mode, (picture.width // 8, picture.height // 8))
        to_rgb(picture)


@contextlib.contextmanager
def _opened(path):
    try:
        with Image.open(path) as picture:
            yield picture
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: the picture is missing") from None
    except PermissionError:
        raise InputError(f"{path}: the picture may not be read; change its permissions") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: not a picture, or a broken one; replace or remove it") from None
    # Decoders raise many types on damaged bytes, SyntaxError and struct.error among them.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: a broken picture ({reason}); replace or remove it") from error


def _upright(picture):
    # Damaged EXIF says nothing about the pixels, which decide by themselves whether it is broken.
    with contextlib.suppress(SyntaxError, ValueError, KeyError, TypeError):
        return ImageOps.exif_transpose(picture)
    return picture


def to_rgb(picture):
    """A PIL picture of any mode as 8-bit RGB, as ``read_picture`` gives it."""
    if picture.mode in _SIXTEEN_BIT:
        values = np.asarray(picture)
        if picture.mode == "I" and (values.min() < 0 or values.max() > 65535):
            raise InputError("holds 32-bit values of unknown range; save it with 8 or 16 bits")
        scaled = (values.astype(np.uint32) * 255 + 32767) // 65535
        return Image.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise InputError("holds fractions of unknown range; save it with 8 or 16 bits")
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, picture).convert("RGB")
    return picture.convert("RGB")


def find_pictures(folder):
    """The picture files anywhere below ``folder``, sorted; hidden files are none.

    Returns:
        pictures: paths.
        others: names of the files that are no pictures by their ending.
    """
    pictures, others = [], []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in names:
            if is_hidden(name):
                continue
            if name.lower().endswith(ENDINGS):
                pictures.append(Path(parent, name))
            else:
                others.append(name)
    return sorted(pictures), sorted(others)


class Finder:
    """Finds files whatever the case of the letters in their paths, listing each folder once."""

    def __init__(self):
        self._listing = functools.cache(self._list)

    def find(self, folder, relative):
        """The file ``relative`` below ``folder`` as the disk spells it, None if there is none."""
        relative = relative.strip().replace("\\", "/")
        if os.path.isabs(relative):
            relative = os.path.relpath(relative, folder)
        path = str(folder)
        for part in PurePosixPath(relative).parts:
            if part == "..":
                path = os.path.dirname(path)
                continue
            exact, folded = self._listing(path)
            name = part if part in exact else folded.get(part.casefold())
            if name is None:
                return None
            path = os.path.join(path, name)
        return Path(path) if os.path.isfile(path) else None

    @staticmethod
    def _list(folder):
        try:
            names = sorted(os.listdir(folder), reverse=True)
        except OSError:
            names = []
        return set(names), {name.casefold(): name for name in names}


def is_hidden(name):
    """Whether an operating system put it there rather than a person (._x, __MACOSX, Thumbs.db)."""
    return name.startswith((".", "__")) or name.lower() in ("thumbs.db", "desktop.ini")


def check_pictures(pictures, folder):
    """Decode every picture that has not been seen whole before.

    What passed is remembered by size and time of change in the user's cache folder, so the next
    run on the same files only asks for those.

    Args:
        pictures: identity below ``folder`` -> path.
        folder: the dataset's folder.

    Raises:
        InputError: names the first bad picture and how many more there are.
    """
    memory = _cache_folder() / f"{fingerprint(str(folder))}.json"
    checked = _read_memory(memory)
    unseen, errors = {}, {}
    for identity, path in pictures.items():
        try:
            stat = os.stat(path)
        except OSError:
            errors[identity] = f"{path}: the picture is missing"
            continue
        state = [stat.st_size, stat.st_mtime_ns]
        if checked.get(identity) != state:
            unseen[identity] = state
    if len(unseen) > _MANY:
        print(f"Checking {len(unseen):,} pictures, this once", flush=True)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda identity: _error_of(pictures[identity]), unseen)
        for identity, error in zip(unseen, results, strict=True):
            if error:
                errors[identity] = error
            else:
                checked[identity] = unseen[identity]
    if any(identity not in errors for identity in unseen):
        # The memory only saves time: without it the next run checks again.
        with contextlib.suppress(OSError), atomic_write(memory) as file:
            json.dump({"folder": str(folder), "checked": checked}, file)
    if errors:
        first = next(errors[identity] for identity in pictures if identity in errors)
        more = f" (and {len(errors) - 1:,} more bad pictures)" if len(errors) > 1 else ""
        raise InputError(f"{first}{more}")


def _error_of(path):
    try:
        _check_picture(path)
    except InputError as error:
        return str(error)
    return None


def _cache_folder():
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "vip-for-dassl" / "checked"


def _read_memory(path):
    try:
        checked = json.loads(path.read_text(encoding="utf-8"))["checked"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return checked if isinstance(checked, dict) else {}
