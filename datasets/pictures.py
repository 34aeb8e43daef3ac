"""Images from files: which files are images, where they are, and every mode to the right RGB.

What Pillow reads, and DICOM: its files are told apart here and read in ``datasets/dicom.py``.
"""

import contextlib
import functools
import heapq
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from dassl.data.datasets import Datum
from PIL import Image, ImageOps, PngImagePlugin

from core.errors import InputError, short

from .arrays import address_of, image_at
from .dicom import (
    DEFAULT,
    Rendering,
    Source,
    is_dicom,
    is_marked_dicom,
    is_named_dicom,
    read_dicom,
    readable,
)

# Pillow opens these, but they are not raster images of one picture, need outside programs, or hold
# an image whose size is not known before it is decoded (BLP, ICNS and ICO).
_NOT_IMAGES = {
    "BLP", "BUFR", "EPS", "GRIB", "HDF5", "ICNS", "ICO", "IPTC", "MPEG", "PDF", "WMF"
}  # fmt: skip
# Pillow's own bound (179 million) would refuse slides. At this one an RGB image takes 2 GB.
MAX_PIXELS = 500_000_000
Image.MAX_IMAGE_PIXELS = None
# Colour profiles and notes of more than Pillow's 1 MB are not damage either.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 * 1024**2
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_WITH_ALPHA = ("RGBA", "RGBa", "LA", "La", "PA")


class Picture(Datum):
    """An image with its label, and what else is known of it.

    ``impath`` is its file, or its address in an array (``datasets/arrays.py``). ``id`` is its POSIX
    path below the dataset's folder, by which splits, views and fingerprints know it. ``patient``
    and ``subtype`` are "" where unknown.
    """

    def __init__(
        self,
        impath: str | Path,
        label: int,
        classname: str,
        id: str,
        patient: str = "",
        subtype: str = "",
    ):
        # Datum's own attributes, set here: Datum would ask the disk for each file, and whether the
        # files are there is checked once for all.
        self._impath = str(impath)
        self._label = label
        self._domain = 0
        self._classname = classname
        self.id = id
        self.patient = patient
        self.subtype = subtype

    def relabelled(self, label: int) -> "Picture":
        return Picture(self.impath, label, self.classname, self.id, self.patient, self.subtype)


# Reading


def read_picture(
    path: str | Path, keep_grey: bool = False, rendering: Rendering = DEFAULT
) -> Image.Image:
    """Read an image file as 8-bit RGB, upright; with ``keep_grey``, 8-bit grey as it is.

    Grey becomes three equal channels; 16-bit grey is scaled from its whole range (0 to 65535), so
    images compare with each other; transparent pixels become black, the colour around a
    dermatoscope's field and outside an X-ray's collimator, which adds nothing to what is shown.

    Args:
        rendering: what of a DICOM file is shown: ``run.rendering`` of a loaded run,
            ``rendering_of(cfg.DATASET)`` of a dataset.

    Raises:
        InputError: the file is missing, broken, cut short or too large, or its values have no
            known range.
    """
    with open_picture(path, rendering) as picture:
        picture = _upright(picture)
        if keep_grey and picture.mode == "L" and "transparency" not in picture.info:
            picture.load()
            return picture
        return to_rgb(picture)


def read_uploaded(
    name: str, data: bytes, most_pixels: int, rendering: Rendering = DEFAULT
) -> Image.Image:
    """As ``read_picture``, of a file that lies in memory; ``name`` is for messages and its ending.

    Args:
        most_pixels: an image of more is not decoded.

    Raises:
        InputError: as ``read_picture``, or the image is too large.
    """
    with _naming(name), _opened(name, data, rendering, most_pixels) as picture:
        return to_rgb(_upright(picture))


def read_grey(path: str | Path, least: int, rendering: Rendering = DEFAULT) -> Image.Image:
    """As ``read_picture``, in grey; a JPEG is decoded at a fraction of its size where it can be.

    Args:
        least: pixels that each side keeps at least, if it has them.
    """
    with open_picture(path, rendering) as picture:
        picture.draft("L", (least, least))
        return to_rgb(_upright(picture)).convert("L")


@contextlib.contextmanager
def open_picture(path: str | Path, rendering: Rendering = DEFAULT) -> Iterator[Image.Image]:
    """Open an image file; whatever fails in the block is an InputError that names the file.

    ``path`` may be the address of an image in an array.
    """
    if address := address_of(path):
        yield image_at(address)
        return
    with _naming(path), _opened(path, path, rendering, MAX_PIXELS) as picture:
        yield picture


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Whatever fails in the block is an InputError that names the file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: the image is missing") from None
    except PermissionError:
        raise InputError(f"{path}: the image may not be read; change its permissions") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{path}: not an image, or a broken one; replace or remove it") from None
    except MemoryError:
        raise InputError(
            f"{path}: there is too little memory for this image; save it at a lower resolution"
        ) from None
    # Decoders raise many types on damaged bytes, SyntaxError and struct.error among them.
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # the system's trouble, not the image's
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: a broken image ({reason}); replace or remove it") from error


def _opened(
    path: str | Path, source: Source, rendering: Rendering, most_pixels: int
) -> Image.Image:
    """The image in ``source``, the file itself or what the file ``path`` holds."""
    check_size = functools.partial(_check_size, most_pixels)
    # The bytes decide: a DICOM file may begin as a TIFF does, and a PNG be called x.dcm.
    if is_marked_dicom(source):
        return read_dicom(source, rendering, check_size)
    try:
        picture = Image.open(readable(source), formats=_formats())
    except Image.UnidentifiedImageError:
        if is_named_dicom(path):  # some real files lack the mark
            return read_dicom(source, rendering, check_size)
        raise
    check_size(picture.width, picture.height)
    return picture


def _check_size(most: int, width: int, height: int) -> None:
    if width * height > most:
        raise InputError(
            f"has {width:,} x {height:,} pixels; at most {most:,} are read: save it at a "
            "lower resolution, or cut it into parts"
        )


def _upright(picture: Image.Image) -> Image.Image:
    # Damaged EXIF says nothing about the pixels, which decide by themselves whether it is broken.
    with contextlib.suppress(SyntaxError, ValueError, KeyError, TypeError):
        return ImageOps.exif_transpose(picture)
    return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """A PIL image of any mode as 8-bit RGB, as ``read_picture`` gives it."""
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


# Which files are images


@functools.cache
def _formats() -> list[str]:
    """The formats that are read; a file's bytes decide which it has, not its name."""
    Image.init()
    return [name for name in Image.ID if name in Image.OPEN and name not in _NOT_IMAGES]


@functools.cache
def endings() -> frozenset[str]:
    """The endings of image files, in lower case with their dot: all that Pillow reads."""
    readable = {*_formats(), "MPO"}  # a camera's JPEG with a second image
    return frozenset(end for end, name in Image.registered_extensions().items() if name in readable)


def is_picture(path: str | Path) -> bool:
    """Whether a file is an image by its ending; without an ending, whether it is DICOM."""
    return os.path.splitext(path)[1].lower() in endings() or is_dicom(path)


def is_hidden(name: str) -> bool:
    """Whether an operating system put it there rather than a person (._x, __MACOSX, Thumbs.db)."""
    return name.startswith((".", "__")) or name.lower() in ("thumbs.db", "desktop.ini")


def skipped_note(paths: Sequence[str | Path]) -> str:
    """What to say of files that are not images: their number and the first name."""
    names = sorted(os.path.basename(path) for path in paths)
    if len(names) == 1:
        return f"skipped 1 file that is not an image: {names[0]}"
    return f"skipped {len(names):,} files that are not images, first {names[0]}"


# Finding them


def files_below(folder: str | Path) -> dict[str, Path]:
    """The files anywhere below ``folder``, each real file once; hidden files are none.

    Links are followed, except one to a folder that holds ``folder``. A file that is reached both
    directly and by a link keeps its direct path.

    Returns:
        real path -> path below ``folder``, sorted by path.
    """
    return {real: Path(path) for real, path in _paths_below(folder).items()}


def _paths_below(folder: str | Path) -> dict[str, str]:
    # Text alone: for 100,000 files, Path objects would take most of the time.
    start = os.path.realpath(folder)
    files: dict[str, str] = {}
    seen: set[str] = set()
    folders: list[str] = [str(Path(folder))]
    links: list[Path] = []
    while folders or links:
        # Links come last, so that what they lead to keeps its own path where it has one.
        here = folders.pop() if folders else str(heapq.heappop(links))
        real = os.path.realpath(here)
        if os.path.isdir(here):
            if real not in seen and (real == start or not _holds(real, start)):
                seen.add(real)
                inner, linked = _list_folder(here, real, files)
                folders += inner
                for link in linked:
                    heapq.heappush(links, link)
        elif os.path.isfile(here) or not os.path.exists(here):  # a dead link: a missing file
            files.setdefault(real, here)
    # In the order of paths: folder by folder, each before what its name begins.
    return dict(sorted(files.items(), key=lambda item: item[1].replace(os.sep, "\0")))


def _holds(outer: str, inner: str) -> bool:
    return os.path.commonpath([outer, inner]) == outer


def _list_folder(folder: str, real: str, files: dict[str, str]) -> tuple[list[str], list[Path]]:
    """Add the files directly in ``folder`` to ``files``; returns its folders and its links."""
    folders, links = [], []
    real = os.path.join(real, "")
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_symlink():
                    links.append(Path(entry.path))
                elif entry.is_dir():
                    folders.append(entry.path)
                elif entry.is_file():  # not a pipe or a socket
                    files.setdefault(real + entry.name, entry.path)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None
    return folders, links


def find_pictures(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """The image files anywhere below ``folder``, and the files that are not images, both sorted."""
    pictures: list[Path] = []
    others: list[Path] = []
    for path in files_below(folder).values():
        (pictures if is_picture(path) else others).append(path)
    return pictures, others


def pictures_at(paths: Iterable[str | Path]) -> list[tuple[Path, str]]:
    """The images that paths name: files, and folders with all that is below them.

    What a folder holds besides is said on standard error.

    Returns:
        pairs of a file and its name: its path below the folder that was named.

    Raises:
        InputError: nothing there, or a folder without images.
    """
    chosen: list[tuple[Path, str]] = []
    for path in map(Path, paths):
        if os.path.isdir(path):
            files, others = find_pictures(path)
            if not files:
                why = f": {skipped_note(others)}" if others else ""
                raise InputError(f"{path}: holds no images{why}")
            if others:
                print(f"{path}: {skipped_note(others)}", file=sys.stderr)
            chosen += [(file, file.relative_to(path).as_posix()) for file in files]
        elif os.path.isfile(path):
            chosen.append((path, path.name))
        elif (address := address_of(path)) and os.path.isfile(address.file):
            chosen.append((path, f"{Path(address.file).name}#{address.part}/{path.name}"))
        else:
            raise InputError(f"{short(str(path))}: there is no such image or folder")
    return chosen


class Finder:
    """Finds files whatever the case of the letters in their paths, listing each folder once."""

    def __init__(self) -> None:
        self._listing = functools.cache(_listing)
        self._by_name = functools.cache(_by_name)
        self._folder = functools.cache(self._spelled_folder)

    def find(self, folder: str | Path, relative: str) -> Path | None:
        """The file ``relative`` below ``folder`` as the disk spells it, None if there is none."""
        found = self.path_of(folder, relative)
        return Path(found) if found else None

    def find_picture(self, folder: str | Path, relative: str) -> Path | None:
        """As ``find``; the image's ending may be missing and, of a bare name, its folder too.

        Raises:
            InputError: several images fit.
        """
        found = self.picture_path_of(folder, relative)
        return Path(found) if found else None

    def path_of(self, folder: str | Path, relative: str) -> str | None:
        """As ``find``, as text: of many files, Path objects would take most of the time."""
        return self._file(*self._parent(folder, relative))

    def picture_path_of(self, folder: str | Path, relative: str) -> str | None:
        """As ``find_picture``, as text."""
        path, name = self._parent(folder, relative)
        if exact := self._file(path, name):
            return exact
        found = self._by_name(path, False).get(name.casefold(), []) if path else []
        if not found and "/" not in relative.replace("\\", "/"):
            found = self._by_name(str(folder), True).get(name.casefold(), [])
        if len(found) > 1:
            raise InputError(
                f"{short(relative)} may be {found[0]} or {found[1]}; write the path out"
            )
        return found[0] if found else None

    def _parent(self, folder: str | Path, relative: str) -> tuple[str | None, str]:
        """The folder of ``relative`` as the disk spells it, None if missing; the last name."""
        relative = relative.strip().replace("\\", "/")
        if "/" in relative and os.path.isabs(relative):
            relative = os.path.relpath(relative, folder)
        above, _, name = relative.rpartition("/")
        return self._folder(str(folder), above), name

    def _spelled_folder(self, folder: str, relative: str) -> str | None:
        path: str | None = folder
        for part in PurePosixPath(relative).parts:
            if path is not None:
                path = os.path.dirname(path) if part == ".." else self._spelled(path, part)
        return path

    def _file(self, folder: str | None, name: str) -> str | None:
        if folder is None:
            return None
        is_file, folded = self._listing(folder)
        spelled = name if name in is_file else folded.get(name.casefold(), "")
        return os.path.join(folder, spelled) if is_file.get(spelled) else None

    def _spelled(self, folder: str, name: str) -> str | None:
        exact, folded = self._listing(folder)
        spelled = name if name in exact else folded.get(name.casefold())
        return None if spelled is None else os.path.join(folder, spelled)


def _listing(folder: str) -> tuple[dict[str, bool], dict[str, str]]:
    """What is in a folder: {name: whether it is a file} and {name in lower case: name}."""
    try:
        with os.scandir(folder) as entries:
            is_file = {entry.name: entry.is_file() for entry in entries}
    except (OSError, ValueError):
        is_file = {}
    return is_file, {name.casefold(): name for name in sorted(is_file, reverse=True)}


def _by_name(folder: str, deep: bool) -> dict[str, list[str]]:
    """Images of a folder by their name and by their name without ending, in lower case."""
    if deep:
        files = list(_paths_below(folder).values())
    else:
        files = [os.path.join(folder, name) for name in sorted(_listing(folder)[0])]
    found: dict[str, list[str]] = {}
    for file in files:
        if is_picture(file):
            name = os.path.basename(file).casefold()
            for spelled in {name, name.rpartition(".")[0] or name}:
                found.setdefault(spelled, []).append(file)
    return found
