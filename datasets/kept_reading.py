"""What reading a large dataset found, kept until anything changes that it followed from.

With 100,000 images, reading a table, finding the files and drawing splits takes seconds. A kept
reading is used again only if all of these are what they were: the settings, the code, the bytes of
each table and list, the names in each folder, and the size and modification time of each image. It
lies in the user's cache folder, where the user alone may read it, and only saves time.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import PIL

from core.errors import InputError
from core.files import atomic_write, cache_folder, fingerprint

from .pictures import Picture
from .salt import is_hashed, salt_name
from .splits import SPLITS, Split

MANY = 10_000  # images; fewer are read in less than a second
# Settings that reading does not follow from.
_LATER = ("NUM_SHOTS", "SUBSAMPLE_CLASSES", "SYMPTOMS")
# Within so many seconds of a change, a folder may change again and its time stay the same.
_TOO_NEW = 2.0


@dataclass
class Reading:
    """What reading a dataset found.

    Attributes:
        names: what ``find_classnames`` gives, where it is asked.
        split: all images. duplicates: groups of images whose files hold the same bytes.
        notes: lines for the card. skipped: files met that are not images.
        drawn: whether any split was drawn. fingerprint: of ``split``.
        unchecked: identities of the images that were not decoded yet, None if none was.
    """

    names: list[str]
    split: Split
    duplicates: list[list[Picture]]
    notes: list[str]
    skipped: list[Path]
    drawn: bool
    fingerprint: str
    unchecked: set[str] | None = None


class Read(Protocol):
    """What is asked of a dataset, a ``MedicalDataset``."""

    dataset_dir: Any
    settings: SimpleNamespace
    files_read: dict[tuple[str, str], list[str]]

    def find_file(self, name: str, setting: str) -> Path: ...


class KeptReading:
    """The kept reading of one dataset; there is one for each class and folder.

    Args:
        dataset: its settings and its folder are known, and nothing of it was read.
    """

    def __init__(self, dataset: Read):
        self._dataset = dataset
        self._folder = str(dataset.dataset_dir)
        self._splits = os.path.join(self._folder, "splits")  # where drawn splits are recorded
        owner = [type(dataset).__name__, self._folder]
        self._path = cache_folder("readings") / f"{fingerprint(owner)}.json"
        self._began = time.time()
        self._data: dict[str, Any] = {}

    def recall(self) -> Reading | None:
        """The reading, None if none is kept or anything has changed."""
        # A damaged file, and one of another version.
        damaged = (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError)
        with contextlib.suppress(*damaged):
            data = json.loads(self._path.read_text(encoding="utf-8"))
            if data["key"] != self._key(data["salt"]) or not self._same_files(data["files"]):
                return None
            if data["names"] != self._names_in(data["folders"]):
                return None
            reading = _unpacked(data, self._folder)
            if data["states"] != _states(reading):
                return None
            self._data = data
            return reading
        return None

    def keep(self, reading: Reading) -> None:
        """Keep a reading of many images, unless a folder changed while it was read."""
        pictures = _pictures(reading)
        if len(pictures) < MANY:
            return
        with contextlib.suppress(OSError):
            folders = self._folders([p.impath for p in pictures])
            newest = max(os.stat(folder).st_mtime for folder in folders if os.path.isdir(folder))
            if newest > self._began - _TOO_NEW:
                return
            salt = salt_name() if any(is_hashed(p.patient) for p in pictures) else ""
            self._write(
                {
                    "key": self._key(salt),
                    "salt": salt,
                    "files": [[*of, *known] for of, known in self._dataset.files_read.items()],
                    "folders": folders,
                    "names": self._names_in(folders),
                    "states": _states(reading),
                    **_packed(reading, self._folder),
                }
            )

    def keep_checked(self, reading: Reading) -> None:
        """Note in a kept reading which images are still unchecked."""
        if self._data:
            self._write(self._data | {"unchecked": _unchecked(reading)})

    def _write(self, data: dict[str, Any]) -> None:
        # Without it the next start reads again.
        with contextlib.suppress(OSError), atomic_write(self._path, private=True) as file:
            file.write(json.dumps(data))

    def _key(self, salt: str) -> str:
        """Of the settings and the code, and of the salt where hashes name patients."""
        settings = {k: v for k, v in vars(self._dataset.settings).items() if k not in _LATER}
        own_salt = salt_name() if salt else ""
        return fingerprint([type(self._dataset).__name__, settings, _code(), own_salt])

    def _same_files(self, files: Sequence[Sequence[str]]) -> bool:
        """Whether each named file is found where it was, with the same bytes."""
        for name, setting, *known in files:
            try:
                self._dataset.find_file(name, setting)
            except InputError:
                return False
            if self._dataset.files_read[name, setting] != known:
                return False
        return True

    def _folders(self, paths: Sequence[str]) -> list[str]:
        """The folders that images were looked for in: a file more or less there may matter.

        Raises:
            OSError: there is much more in the dataset's folder than its images.
        """
        folders = {os.path.dirname(path) for path in paths} | {self._splits}
        seen: set[str] = set()
        left = 20 * len(paths)
        for folder, inner, files in os.walk(self._folder, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:
                inner.clear()
                continue
            seen.add(real)
            folders.add(folder)
            left -= len(inner) + len(files)
            if left < 0:
                raise OSError(f"{self._folder} takes long to list")
        return sorted(folders)

    def _names_in(self, folders: Iterable[str]) -> str:
        """A digest of the names in each folder; the dataset's own records do not count."""
        digest = hashlib.sha256()
        for folder in folders:
            try:
                names = os.listdir(folder)
            except FileNotFoundError:
                names = []
            if folder == self._folder:
                names = [name for name in names if name != "splits"]
            elif folder == self._splits:
                names = [name for name in names if not name.endswith(".json")]
            digest.update("\0".join([folder, *sorted(names), ""]).encode(errors="surrogateescape"))
        return digest.hexdigest()


def _pictures(reading: Reading) -> list[Picture]:
    return [picture for side in SPLITS for picture in reading.split[side]]


def _states(reading: Reading) -> str:
    """A digest of the size and modification time of each image and each skipped file."""
    states = array("q")
    paths = [p.impath for p in _pictures(reading)]
    for path in [*paths, *map(str, reading.skipped)]:
        stat = os.stat(path)
        states.append(stat.st_size)
        states.append(stat.st_mtime_ns)
    return hashlib.sha256(states.tobytes()).hexdigest()


def _code() -> str:
    """A digest of the code that reads, and of the versions that it follows from."""
    digest = hashlib.sha256(f"{sys.version} {PIL.__version__}".encode())
    here = Path(__file__).parent
    for folder in (here, here.parent / "core"):
        for path in sorted(folder.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


# In columns, with each label and each patient once: read from JSON in a fraction of a second.


def _packed(reading: Reading, folder: str) -> dict[str, Any]:
    pictures = _pictures(reading)
    place = {p.id: i for i, p in enumerate(pictures)}
    kinds: dict[tuple[str, str], tuple[int, Any]] = {}
    patients: dict[str, int] = {}
    for p in pictures:
        kinds.setdefault((p.classname, p.subtype), (len(kinds), p.label))
        patients.setdefault(p.patient, len(patients))
    elsewhere = [(place[p.id], p.impath) for p in pictures if p.impath != f"{folder}/{p.id}"]
    return {
        "sides": [len(reading.split[side]) for side in SPLITS],
        "ids": list(place),
        "elsewhere": elsewhere,
        "kinds": [[label, *kind] for kind, (_, label) in kinds.items()],
        "kind": [kinds[p.classname, p.subtype][0] for p in pictures],
        "patients": list(patients),
        "patient": [patients[p.patient] for p in pictures],
        "duplicates": [[place[p.id] for p in group] for group in reading.duplicates],
        "unchecked": _unchecked(reading),
        "class names": reading.names,
        "notes": reading.notes,
        "skipped": list(map(str, reading.skipped)),
        "drawn": reading.drawn,
        "fingerprint": reading.fingerprint,
    }


def _unchecked(reading: Reading) -> list[int]:
    unchecked = reading.unchecked or ()
    return [i for i, p in enumerate(_pictures(reading)) if p.id in unchecked]


def _unpacked(data: dict[str, Any], folder: str) -> Reading:
    ids, patients = data["ids"], data["patients"]
    kinds = [
        (tuple(label) if isinstance(label, list) else label, classname, subtype)
        for label, classname, subtype in data["kinds"]
    ]
    paths = [f"{folder}/{identity}" for identity in ids]
    for place, path in data["elsewhere"]:
        paths[place] = path
    pictures = []
    for identity, path, kind, patient in zip(
        ids, paths, data["kind"], data["patient"], strict=True
    ):
        label, classname, subtype = kinds[kind]
        pictures.append(Picture(path, label, classname, identity, patients[patient], subtype))
    every = iter(pictures)
    return Reading(
        names=data["class names"],
        split={side: list(islice(every, n)) for side, n in zip(SPLITS, data["sides"], strict=True)},
        duplicates=[[pictures[place] for place in group] for group in data["duplicates"]],
        notes=data["notes"],
        skipped=list(map(Path, data["skipped"])),
        drawn=data["drawn"],
        fingerprint=data["fingerprint"],
        unchecked={ids[place] for place in data["unchecked"]},
    )
