"""What is wrong with image files, found before training: damage, copies, masks."""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import InputError
from core.files import atomic_write, cache_folder, fingerprint
from core.processes import usable_cores

from .arrays import address_of, digest_at
from .dicom import DEFAULT, Rendering
from .pictures import Picture, open_picture, to_rgb

# Below this many, the first check takes no time worth announcing.
_MANY = 1000
# Images larger than this are decoded one at a time, for their memory.
_LARGE = 50_000_000
_one_large = threading.Lock()


class FileMemory:
    """What is known of files until their size or modification time changes; kept between runs.

    It lies in the user's cache folder and only saves time.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = cache_folder("checked") / f"{fingerprint(str(folder))}.json"
        self._facts: dict[str, Any] = {}
        # ``read_json`` would check every entry: a second for 100,000 files.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            facts = json.loads(self._path.read_text(encoding="utf-8"))["checked"]
            self._facts = facts if isinstance(facts, dict) else {}
        self._changed = False
        self._stats: dict[str, os.stat_result] = {}

    def stat(self, path: str) -> os.stat_result:
        """``os.stat``, asked once for each file while the data is loaded."""
        if path not in self._stats:
            self._stats[path] = os.stat(path)
        return self._stats[path]

    def recall(self, identity: str, stat: os.stat_result) -> list[str]:
        """What was noted of a file that has not changed since: "whole", its digest."""
        known = self._facts.get(identity)
        if not isinstance(known, list) or known[:2] != [stat.st_size, stat.st_mtime_ns]:
            return []
        # A list of these two alone is older: it was written of whole images only.
        return known[2:] or ["whole"]

    def note(self, identity: str, stat: os.stat_result, fact: str) -> None:
        facts = [*self.recall(identity, stat), fact]
        self._facts[identity] = [stat.st_size, stat.st_mtime_ns, *facts]
        self._changed = True

    def save(self) -> None:
        if self._changed:
            # Without it the next run checks again.
            # What is known of patients' images: nobody else may read it.
            with contextlib.suppress(OSError), atomic_write(self._path, private=True) as file:
                json.dump({"folder": str(self._folder), "checked": self._facts}, file)
            self._changed = False


# Damage


def check_pictures(
    pictures: Mapping[str, str], memory: FileMemory, rendering: Rendering = DEFAULT
) -> None:
    """Decode every image that has not been seen whole before.

    Args:
        pictures: identity below the dataset's folder -> path.
        rendering: of DICOM files; another frame or window may not be there.

    Raises:
        InputError: names the first bad image and how many more there are.
    """
    unseen, errors = {}, {}
    whole = "whole" if rendering.is_default else f"whole {rendering.key}"
    for identity, path in pictures.items():
        if address_of(path):  # any bytes are an image; opening the archive compared its checksums
            continue
        try:
            stat = memory.stat(path)
        except OSError:
            errors[identity] = f"{path}: the image is missing"
            continue
        if whole not in memory.recall(identity, stat):
            unseen[identity] = stat
    if len(unseen) > _MANY:
        print(f"Checking {len(unseen):,} images (once; the result is kept)", flush=True)
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        results = pool.map(lambda identity: _error_of(pictures[identity], rendering), unseen)
        for (identity, stat), error in zip(unseen.items(), results, strict=True):
            if error:
                errors[identity] = error
            else:
                memory.note(identity, stat, whole)
    memory.save()
    if errors:
        first = next(errors[identity] for identity in pictures if identity in errors)
        more = f" (and {len(errors) - 1:,} more bad images)" if len(errors) > 1 else ""
        raise InputError(f"{first}{more}")


def _error_of(path: str, rendering: Rendering) -> str | None:
    try:
        check_picture(path, rendering)
    except InputError as error:
        return str(error)
    return None


def check_picture(path: str | Path, rendering: Rendering = DEFAULT) -> None:
    """Raise what ``read_picture`` would, at a fraction of its cost for a JPEG.

    Decoding at an eighth of the size still reads the whole compressed stream.
    """
    with open_picture(path, rendering) as picture:
        picture.draft(picture.mode, (max(1, picture.width // 8), max(1, picture.height // 8)))
        large = picture.width * picture.height > _LARGE
        with _one_large if large else contextlib.nullcontext():
            to_rgb(picture)


# Copies


def find_duplicates(pictures: Iterable[Picture], memory: FileMemory) -> list[list[Picture]]:
    """The images whose files hold the same bytes: groups of two or more, sorted by identity.

    Only files of equal size are read, and their digests are remembered.
    """
    by_size: dict[int, list[tuple[Picture, os.stat_result]]] = {}
    by_bytes: dict[tuple[int, str], list[Picture]] = {}
    for picture in pictures:
        if address := address_of(picture.impath):
            by_bytes.setdefault((0, digest_at(address).hex()), []).append(picture)
            continue
        try:
            stat = memory.stat(picture.impath)
        except OSError:  # a missing one is named by the other check
            continue
        by_size.setdefault(stat.st_size, []).append((picture, stat))
    for size, found in by_size.items():
        for picture, stat in found if size and len(found) > 1 else []:
            by_bytes.setdefault((size, _digest(picture, stat, memory)), []).append(picture)
    memory.save()
    groups = [sorted(group, key=lambda p: p.id) for group in by_bytes.values() if len(group) > 1]
    return sorted(groups, key=lambda group: group[0].id)


def _digest(picture: Picture, stat: os.stat_result, memory: FileMemory) -> str:
    for fact in memory.recall(picture.id, stat):
        if str(fact).startswith("sha256:"):
            return fact
    try:
        whole = hashlib.sha256()
        with open(picture.impath, "rb") as file:
            while block := file.read(2**20):
                whole.update(block)
    except OSError as error:
        raise InputError(f"{picture.impath}: cannot be read ({error.strerror})") from None
    digest = f"sha256:{whole.hexdigest()[:32]}"
    memory.note(picture.id, stat, digest)
    return digest


# Masks

_WORDS = ("mask", "seg", "label", "annotat", "gt", "ground", "overlay")  # of what follows
_SUFFIX = re.compile(
    r"^(.+?)[ _.-]+(masks?|seg|segmentations?|segmented|labels?|annotations?|annotated|gt|"
    r"ground[ _-]?truth|overlay)([ _-]?\d+)?$",
    re.IGNORECASE,
)
_FOLDER = re.compile(
    r"masks?|segs?|segmentations?|labels?|annotations?|gt|ground[ _-]?truths?", re.IGNORECASE
)


def masks_among(identities: Collection[str], class_folders: Collection[str] = ()) -> list[str]:
    """The images that look like masks of others: ``a_mask.png`` beside ``a.png``, ``masks/a.png``.

    Args:
        identities: POSIX paths.
        class_folders: names in lower case that a folder may have whatever they mean.
    """
    together = "\n".join(identities).casefold()
    words = [word for word in _WORDS if word in together]
    likely = [i for i in identities if any(word in i.casefold() for word in words)]
    stems = {i.rpartition(".")[0].casefold() for i in identities} if likely else set()
    found = []
    for identity in likely:
        path = PurePosixPath(identity)
        match = _SUFFIX.match(path.stem)
        beside = match and str(path.with_name(match[1])).casefold() in stems
        folders = [name for name in path.parts[:-1] if name.casefold() not in class_folders]
        if beside or any(_FOLDER.fullmatch(name) for name in folders):
            found.append(identity)
    return sorted(found)
