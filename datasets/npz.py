"""The arrays of a NumPy archive (.npz), checked and read in blocks, so that memory is bounded."""

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError

BLOCK = 4 * 2**20  # bytes that are unpacked at a time

_LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip's member: the lengths of its name and extra
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    RuntimeError,  # encrypted, or packed in a way that zipfile does not know
    ValueError,
    OSError,
)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn what a damaged archive raises into an InputError that names it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.errno:  # the system's trouble, not the file's
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: is damaged or only half downloaded ({reason}); download it again"
        ) from None


@dataclass(frozen=True)
class Member:
    """An array of an archive: its name, type and shape, and where its values begin.

    Attributes:
        offset: of the first value in the unpacked member. info: the member's entry.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    info: zipfile.ZipInfo

    @classmethod
    def of(cls, archive: zipfile.ZipFile, name: str) -> "Member":
        """Read the header of an array; no value is read, and nothing is unpickled."""
        if name not in archive.namelist():
            raise InputError(f"has no {name.removesuffix('.npy')}; download it again")
        with archive.open(name) as file:
            try:
                version = np.lib.format.read_magic(file)
                # Only text outside Latin-1 in the names of fields asks for another version.
                read: Any = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, by_column, dtype = read(file)
            except ValueError as error:
                raise InputError(f"{name} is not an array ({error}); download it again") from None
            offset = file.tell()
        if dtype.hasobject:
            raise InputError(
                f"{name} holds pickled objects, which are not read; save plain numbers"
            )
        if by_column and len(shape) > 1:
            raise InputError(
                f"{name} is stored column by column; save numpy.ascontiguousarray of it"
            )
        member = cls(name, dtype, shape, offset, archive.getinfo(name))
        if offset + member.n_bytes != member.info.file_size:
            raise InputError(f"{name} has not the size that its shape says; download it again")
        return member

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def check_images(self) -> None:
        if self.dtype != np.uint8:
            raise InputError(f"{self.name} holds {self.dtype} values; images have 8 bits (uint8)")
        grey_or_rgb = len(self.shape) == 3 or (len(self.shape) == 4 and self.shape[3] == 3)
        if not grey_or_rgb or 0 in self.shape[1:]:
            raise InputError(
                f"{self.name} has the shape {self.shape}; 2D images are [n, height, width] or "
                "[n, height, width, 3]"
            )

    def blocks(self, archive: zipfile.ZipFile) -> Iterator[np.ndarray]:
        """The entries, some at a time, [k, ...]; the end of the last compares the checksum."""
        entry = math.prod(self.shape[1:]) * self.dtype.itemsize
        with archive.open(self.name) as file:
            file.read(self.offset)
            left = self.shape[0]
            while left:
                count = min(left, max(1, BLOCK // max(entry, 1)))
                data = file.read(count * entry)
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])
                left -= count

    def place(self, archive: zipfile.ZipFile) -> int:
        """Where in the archive's own file the values of a plainly stored array begin."""
        file: Any = archive.fp
        file.seek(self.info.header_offset)
        name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        return self.info.header_offset + _LOCAL_HEADER.size + name + extra + self.offset


def read_values(path: str | Path, name: str) -> np.ndarray:
    """A small array of an archive.

    Raises:
        InputError: the archive is damaged, or the array holds pickled objects.
    """
    with reading(path), zipfile.ZipFile(path) as archive:
        member = Member.of(archive, f"{name}.npy")
        blocks = list(member.blocks(archive))
        return np.concatenate(blocks) if blocks else np.empty(member.shape, member.dtype)
