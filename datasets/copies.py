"""Copies among images: files of the same bytes, and images that look the same.

What an image looks like is a perceptual hash of ``BITS`` bits, twice: of the whole image, and of
its middle (``MIDDLE`` of each side), so that an image is also compared with what was cropped out
of another. Resized and compressed copies differ in a few bits, different
chest X-rays (5,856, compared whole) in 38 or more.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from core.errors import InputError
from core.processes import usable_cores

from .copy_settings import BITS, SIDE
from .dicom import DEFAULT, Rendering
from .pictures import Picture, read_grey

MIDDLE = 0.95
MOST_PAIRS = 1_000_000
_LEAST = 8 * SIDE  # pixels a side to which a JPEG may be reduced while it is decoded
_BLOCK = 256  # images compared with all others at a time; of 100,000 images, 100 MB
_FIRST = {"test": 0, "val": 1, "train": 2}  # which of several copies to keep

Near = dict[int, dict[int, int]]


@dataclass(frozen=True)
class Copies:
    """Which of some images are copies of each other.

    Attributes:
        files: for each image, a number that it shares with images of the same bytes.
        near: {number: {number: bits in which their hashes differ}}, in both directions.
    """

    files: Sequence[int]
    near: Near

    def groups(self) -> list[list[int]]:
        """The images that are copies of each other, or of a copy: groups of two or more."""
        members: dict[int, list[int]] = {}
        for image, file in enumerate(self.files):
            members.setdefault(file, []).append(image)
        found, seen = [], set()
        for start in members:
            group, waiting = [], [start]
            while waiting:
                file = waiting.pop()
                if file not in seen:
                    seen.add(file)
                    group += members[file]
                    waiting += self.near.get(file, {})
            if len(group) > 1:
                found.append(sorted(group))
        return found

    def distance(self, one: int, other: int) -> int | None:
        """Bits in which two images differ; None where they are copies only through others."""
        if self.files[one] == self.files[other]:
            return 0
        return self.near.get(self.files[one], {}).get(self.files[other])

    def left_out(self, pictures: Sequence[Picture], side_of: Mapping[str, str]) -> list[int]:
        """The images to leave out, so that no image is a copy of another that is kept.

        Of copies, one in test is kept before one in val, and that before one in train. A test image
        is never left out: results stay comparable with published ones.
        """
        kept: set[int] = set()
        left_out = []

        def rank(image: int) -> tuple[int, str]:
            return _FIRST[side_of[pictures[image].id]], pictures[image].id

        for image in sorted(range(len(pictures)), key=rank):
            file = self.files[image]
            is_copy = file in kept or any(other in kept for other in self.near.get(file, {}))
            if is_copy and side_of[pictures[image].id] != "test":
                left_out.append(image)
            else:
                kept.add(file)
        return sorted(left_out)


def find_copies(
    pictures: Sequence[Picture],
    duplicates: Sequence[Sequence[Picture]],
    distance: int | None,
    rendering: Rendering = DEFAULT,
) -> Copies:
    """The copies among ``pictures``.

    Args:
        duplicates: groups of the same bytes, as ``find_duplicates`` gives them.
        distance: bits in which hashes of copies may differ; None: only the same bytes count.

    Raises:
        InputError: an image cannot be read, or so many images look alike that the distance is
            meaningless.
    """
    first_of = {picture.id: group[0].id for group in duplicates for picture in group}
    numbers: dict[str, int] = {}
    files = [
        numbers.setdefault(first_of.get(picture.id, picture.id), len(numbers))
        for picture in pictures
    ]
    if distance is None:
        return Copies(files, {})
    paths: dict[int, str] = {}
    for file, picture in zip(files, pictures, strict=True):
        paths.setdefault(file, picture.impath)
    found = hashes([paths[file] for file in range(len(paths))], rendering)
    return Copies(files, near_pairs(found, distance))


def hashes(paths: Sequence[str | Path], rendering: Rendering = DEFAULT) -> np.ndarray:
    """[n, 2, BITS] booleans: of each image the hash of the whole and of its middle."""
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        found = pool.map(partial(_hashes_of, rendering), paths)
        shown = tqdm(found, "hashing", len(paths), unit="image", leave=False, disable=None)
        return np.array(list(shown), dtype=bool).reshape(len(paths), 2, BITS)


def _hashes_of(rendering: Rendering, path: str | Path) -> list[np.ndarray]:
    image = read_grey(path, _LEAST, rendering)
    width, height = image.size
    left, top = round(width * (1 - MIDDLE) / 2), round(height * (1 - MIDDLE) / 2)
    middle = image.crop((left, top, width - left, height - top))
    import imagehash  # here: it imports SciPy

    return [imagehash.phash(part, hash_size=SIDE).hash.ravel() for part in (image, middle)]


def near_pairs(found: np.ndarray, distance: int) -> Near:
    """{index: {index: bits}} of the images whose hashes differ in at most ``distance`` bits.

    A matrix product of signs counts the differing bits of all pairs, exactly: 100,000 images are
    8e12 operations.

    Args:
        found: [n, 2, BITS], as ``hashes`` gives them. The whole of one image is compared with the
            whole and the middle of the other; the least difference counts.
    """
    signs = found.astype(np.float32) * 2 - 1
    whole, middle = (np.ascontiguousarray(signs[:, part]) for part in (0, 1))
    near: Near = {}
    pairs = 0
    for start in range(0, len(found), _BLOCK):
        rows = slice(start, start + _BLOCK)
        alike = whole[rows] @ whole[start:].T  # [block, n - start]: equal minus differing bits
        np.maximum(alike, middle[rows] @ whole[start:].T, out=alike)
        np.maximum(alike, whole[rows] @ middle[start:].T, out=alike)
        for one, other in np.argwhere(alike >= BITS - 2 * distance).tolist():
            if one < other:
                bits = (BITS - int(alike[one, other])) // 2
                near.setdefault(start + one, {})[start + other] = bits
                near.setdefault(start + other, {})[start + one] = bits
                pairs += 1
        if pairs > MOST_PAIRS:
            raise InputError(
                f"more than {MOST_PAIRS:,} pairs of images differ in at most {distance} of {BITS} "
                "bits: these are not copies; give a smaller --near"
            )
    return near
