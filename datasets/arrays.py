"""Images that lie in the arrays of a NumPy archive (.npz), as MedMNIST has them.

The address of such an image is ``<file>.npz#train/00005``: entry 5 of the array ``train_images``.

A process holds the images of a file whole where they take at most ``IN_MEMORY`` bytes. Larger ones
are read one by one from the disk: from the archive itself if it stores them plainly, else from an
uncompressed copy in the user's cache folder. So neither the size of a file nor the order of reading
changes what memory a process needs, and all processes share the copy.
"""

import errno
import hashlib
import json
import math
import os
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from core.errors import InputError
from core.files import atomic_write, cache_folder
from core.kept_folders import hold, make_room

from .npz import Member, reading

IN_MEMORY = 256 * 2**20  # bytes of images in one file; MedMNIST's 28-pixel sets are all below it
KEPT_OPEN = 2  # files that a process has open at a time
MAX_GB = 40.0  # of all copies

_DIGESTS = "digests.npz"  # written last: a folder that has it is complete


class Address(NamedTuple):
    """Where an image is: entry ``place`` of the array ``<part>_images`` of ``file``."""

    file: str
    part: str
    place: int


def address_of(path: str | Path) -> Address | None:
    """``path`` as the address of an image in an array; None if it is an ordinary path."""
    # No regular expression: it is asked of every image several times.
    file, _, entry = os.fspath(path).rpartition("#")
    part, _, index = entry.partition("/")
    if not file.lower().endswith(".npz") or not part.isidentifier() or not index.isdecimal():
        return None
    return Address(file, part, int(index))


def file_of(path: str | Path) -> str:
    """The file that an image lies in: ``path`` itself, or the archive that it addresses."""
    address = address_of(path)
    return address.file if address else os.fspath(path)


def image_at(address: Address) -> Image.Image:
    """The image as 8-bit grey or RGB.

    Raises:
        InputError: as ``open_arrays``, or the archive has no such image.
    """
    return Image.fromarray(_array(address).image(address.place))


def digest_at(address: Address) -> bytes:
    """16 bytes that two images share if their pixels are the same."""
    return _array(address).digests[address.place].tobytes()


def _array(address: Address) -> "ImageArray":
    arrays = open_arrays(address.file)
    array = arrays.get(address.part)
    if array is None or address.place >= array.shape[0]:
        sizes = ", ".join(f"{array.shape[0]:,} in {part}" for part, array in arrays.items())
        raise InputError(
            f"{address.file}: has no image {address.part}/{address.place:05d}; it has {sizes}"
        )
    return array


@dataclass
class ImageArray:
    """The images of one part of an archive.

    Attributes:
        shape: (n, height, width) of grey images or (n, height, width, 3) of RGB.
        values: the array itself, or None where the images are read from ``file`` one by one.
        file, offset: where the first image begins.
        digests: [n, 16] bytes, one row an image.
    """

    shape: tuple[int, ...]
    values: np.ndarray | None
    file: Path
    offset: int
    digests: np.ndarray

    def image(self, index: int) -> np.ndarray:
        """[height, width] or [height, width, 3] bytes of an image."""
        if self.values is not None:
            return self.values[index].copy()
        size = math.prod(self.shape[1:])
        # Reading, unlike a mapped file, leaves the memory of the process as it is.
        try:
            pixels = np.fromfile(self.file, np.uint8, size, offset=self.offset + index * size)
        except OSError as error:
            raise InputError(f"{self.file}: cannot be read ({error.strerror})") from None
        if len(pixels) < size:
            raise InputError(f"{self.file}: is shorter than it was; start the command again")
        return pixels.reshape(self.shape[1:])


# Opening


_open: dict[tuple[str, int, int], dict[str, ImageArray]] = {}
_held: dict[tuple[str, int, int], IO[str]] = {}  # copies must not be deleted while they are open
_opening = threading.Lock()


def open_arrays(path: str | Path, max_gb: float = MAX_GB) -> dict[str, ImageArray]:
    """The images of an archive, by part; opened once by each process.

    The first time that a process opens a file, every byte is unpacked and compared with the
    archive's checksums. Of a file too large for the memory this is done once for all processes.

    Args:
        max_gb: the largest size of all copies together; those that were unused longest are deleted.

    Raises:
        InputError: the file is missing, damaged or not of this form, or has no room for its copy.
    """
    path = os.fspath(path) if os.path.isabs(path) else os.path.abspath(path)
    try:
        stat = os.stat(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    key = (path, stat.st_size, stat.st_mtime_ns)
    with _opening:
        if key not in _open:
            while len(_open) >= KEPT_OPEN:
                _close(next(iter(_open)))
            _open[key] = _opened(key, max_gb)
        return _open[key]


def close_all() -> None:
    """Let all files go: their memory, and the hold on their copies."""
    with _opening:
        for key in list(_open):
            _close(key)


def _close(key: tuple[str, int, int]) -> None:
    del _open[key]
    if key in _held:
        _held.pop(key).close()


def _opened(key: tuple[str, int, int], max_gb: float) -> dict[str, ImageArray]:
    path = key[0]
    with reading(path), zipfile.ZipFile(path) as archive:
        members = {
            name.removesuffix("_images.npy"): Member.of(archive, name)
            for name in archive.namelist()
            if name.endswith("_images.npy")
        }
        for member in members.values():
            member.check_images()
        if sum(member.n_bytes for member in members.values()) > IN_MEMORY:
            return _from_disk(key, archive, members, max_gb)
        return {part: _in_memory(archive, member) for part, member in members.items()}


def _pass_through(
    archive: zipfile.ZipFile, member: Member, write: Callable[[np.ndarray], object]
) -> np.ndarray:
    """Give ``write`` every block of images; returns the digests, [n, 16] bytes."""
    digests = [
        hashlib.blake2b(image, digest_size=16).digest()
        for block in member.blocks(archive)
        if write(block) is not False
        for image in block
    ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def _in_memory(archive: zipfile.ZipFile, member: Member) -> ImageArray:
    values = np.empty(member.shape, np.uint8)
    done = 0

    def write(block: np.ndarray) -> None:
        nonlocal done
        values[done : done + len(block)] = block
        done += len(block)

    digests = _pass_through(archive, member, write)
    return ImageArray(member.shape, values, Path(archive.filename or ""), 0, digests)


# From the disk


def _from_disk(
    key: tuple[str, int, int], archive: zipfile.ZipFile, members: dict[str, Member], max_gb: float
) -> dict[str, ImageArray]:
    """Arrays that are read image by image; what takes a pass through the file is kept."""
    root = cache_folder("arrays")
    folder = root / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    try:
        # Images of patients: nobody else may read them.
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(root, key[0]):
            if not (folder / _DIGESTS).exists():
                _prepare(folder, archive, members, max_gb)
            _held[key] = hold(folder)
        with np.load(folder / _DIGESTS) as file:
            digests = dict(file)
    except (OSError, NotImplementedError) as error:  # the second where no file can be locked
        reason = getattr(error, "strerror", None) or error
        total = sum(member.n_bytes for member in members.values()) / 1e9
        raise InputError(
            f"its images take {total:.1f} GB and cannot be prepared in {root} ({reason}); set "
            "XDG_CACHE_HOME to a folder with room, raise DATASET.COPIES_GB, or take a smaller "
            "DATASET.SIZE"
        ) from None
    arrays = {}
    for part, member in members.items():
        copy = folder / f"{part}.bin"
        file, offset = (copy, 0) if copy.exists() else (Path(key[0]), member.place(archive))
        arrays[part] = ImageArray(member.shape, None, file, offset, digests[part])
    return arrays


@contextmanager
def _locked(root: Path, path: str) -> Iterator[None]:
    lock = FileLock(root / ".lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another run is preparing images: waiting to read {path}", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare(
    folder: Path, archive: zipfile.ZipFile, members: dict[str, Member], max_gb: float
) -> None:
    """Check every byte; leave the digests and, of compressed arrays, a copy in ``folder``."""
    packed = [m for m in members.values() if m.info.compress_type != zipfile.ZIP_STORED]
    needed = sum(member.n_bytes for member in packed)
    shutil.rmtree(folder, ignore_errors=True)  # what a run that was killed left
    folder.mkdir(mode=0o700)
    others = [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]
    make_room(others, needed, max_gb * 1e9, "DATASET.COPIES_GB")
    if needed > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, "the disk has too little room")
    what = f"Copying the images of {archive.filename} ({needed / 1e9:.1f} GB unpacked) to {folder}"
    if not packed:
        what = f"Checking the images of {archive.filename}"
    print(f"{what}, once", flush=True)
    digests = {}
    for part, member in members.items():
        if member in packed:
            with atomic_write(folder / f"{part}.bin", "wb", private=True) as file:
                digests[part] = _pass_through(archive, member, file.write)
        else:
            digests[part] = _pass_through(archive, member, len)
    with atomic_write(folder / _DIGESTS, "wb", private=True) as file:
        np.savez(file, allow_pickle=False, **digests)
