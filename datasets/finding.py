"""Finding a dataset's images: in class folders, or by the names in a split file."""

import fnmatch
import hashlib
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core.errors import InputError, and_more, short, some

from .classes import ClassNames
from .pictures import Finder, Picture, files_below, is_hidden, is_picture, skipped_note
from .split_files import read_split_rows
from .splits import SPLIT_NAMES, Split


class ImageSource:
    """What a dataset finds its images with.

    Attributes:
        settings: of ``cfg.DATASET``. dataset_dir: the folder that image identities are below.
        classes: the classes to find. skipped: files met that are not images.
        given_by: what said which splits there are, for the card.
        files_read: (name, setting) of each file that settings name -> [its path, its digest].
    """

    settings: SimpleNamespace
    dataset_dir: Any
    classes: ClassNames
    source: str
    notes: list[str]

    def __init__(self) -> None:
        self.skipped: list[Path] = []
        self.given_by = "the folders"
        self.files_read: dict[tuple[str, str], list[str]] = {}
        self._excluded: set[str] = set()
        self._files: dict[Path, tuple[dict[str, Path], list[Path]]] = {}

    def describe(self, name: str, label: int) -> tuple[str, str]:
        """What a file's name tells: (patient, subtype), "" for what it does not."""
        return "", ""

    def label_of(self, name: str) -> int | None:
        """The label of a class name, folder name or alias, in any spelling; None if none."""
        return self.classes.label_of(name)

    def picture(
        self, path: str | Path, label: int, patient: str | None = None, subtype: str | None = None
    ) -> Picture:
        """A Picture of ``path``, described by its name where nothing better is known."""
        known_patient, known_subtype = self.describe(os.path.basename(path), label)
        if self.settings.PATIENT_PATTERN:
            pattern, name = self.settings.PATIENT_PATTERN, os.path.basename(path)
            match = re.search(pattern, self.identity(path) if "/" in pattern else name)
            known_patient = (match[1] or "") if match else ""
        return Picture(
            path,
            label,
            self.classes.names[label],
            self.identity(path),
            known_patient if patient is None else patient,
            known_subtype if subtype is None else subtype,
        )

    def identity(self, path: str | Path) -> str:
        """The POSIX path below the dataset's folder."""
        identity = self._path_below(str(path))
        try:
            identity.encode()
        except UnicodeEncodeError:
            raise InputError(f"{identity!r}: the file name is not UTF-8; rename it") from None
        return identity

    def _path_below(self, path: str) -> str:
        folder = str(self.dataset_dir)
        inner = path[len(folder) :]
        # As most paths are spelled; of 100,000, the general way would take a second.
        if path.startswith(folder) and inner[:1] == "/" and "/." not in inner and "//" not in inner:
            return inner[1:]
        return Path(os.path.relpath(path, self.dataset_dir)).as_posix()

    def is_excluded(self, path: str | Path) -> bool:
        """Whether a pattern of DATASET.EXCLUDE matches the end of a file's path."""
        if not self.settings.EXCLUDE:
            return False
        identity = self.identity(path)
        spelled = f"/{identity}".casefold()
        excluded = any(
            fnmatch.fnmatchcase(spelled, f"*/{str(pattern).casefold()}")
            for pattern in self.settings.EXCLUDE
        )
        if excluded:
            self._excluded.add(identity)
        return excluded

    def exclusion_notes(self) -> list[str]:
        """What DATASET.EXCLUDE did, for the card."""
        if not self.settings.EXCLUDE:
            return []
        return [f"left out by DATASET.EXCLUDE: {len(self._excluded):,} files"]

    def without_excluded(self, given: Split) -> Split:
        """``given`` without the images that DATASET.EXCLUDE_FILE lists."""
        if not self.settings.EXCLUDE_FILE:
            return given
        path = self.find_file(self.settings.EXCLUDE_FILE, "DATASET.EXCLUDE_FILE")
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from None
        listed = {line for line in lines if line.strip() and not line.startswith("#")}
        found = {p.id for pictures in given.values() for p in pictures if p.id in listed}
        note = f"left out by DATASET.EXCLUDE_FILE: {len(found):,} images"
        if missing := sorted(listed - found):
            note += f"; not among the images: {some(missing, 2)}"
        self.notes.append(note)
        return {side: [p for p in given[side] if p.id not in found] for side in given}

    def split_folders(self) -> dict[str, Path]:
        """The split folders there are, by split, under any usual name and in any case."""
        found: dict[str, Path] = {}
        for entry in subfolders(self.dataset_dir):
            side = SPLIT_NAMES.get(entry.name.lower())
            if side in found:
                raise InputError(f"{entry}: {found[side].name} is there too; merge the two folders")
            if side:
                found[side] = entry
        return found

    def read_split_folders(self) -> Split:
        """Images of {train,val,test}/<class>/..., of the splits that there are."""
        folders = self.split_folders()
        if "train" not in folders:
            raise InputError(f"{self.dataset_dir}: there is no folder 'train' in it; {self.source}")
        return {side: self.read_class_folders(folder) for side, folder in folders.items()}

    def files_of(self, folder: Path) -> tuple[dict[str, Path], list[Path]]:
        """The images anywhere below ``folder``, real path -> path, and the other files.

        Neither holds what DATASET.EXCLUDE leaves out.
        """
        if folder not in self._files:
            images: dict[str, Path] = {}
            others: list[Path] = []
            for real, path in files_below(folder).items():
                if self.is_excluded(path):
                    continue
                if is_picture(path):
                    images[real] = path
                else:
                    others.append(path)
            self._files[folder] = images, others
        return self._files[folder]

    def read_class_folders(self, folder: Path) -> list[Picture]:
        """Images of <class>/..., each real file once; every class has to have some."""
        found: dict[str, tuple[int, Path]] = {}
        skipped = [
            path
            for path in folder.iterdir()
            if path.is_file() and not is_hidden(path.name) and not self.is_excluded(path)
        ]
        for entry in subfolders(folder):
            label = self.label_of(entry.name)
            images, others = self.files_of(entry)
            if label is None:
                if images:
                    raise InputError(
                        f"{entry}: holds images, but {entry.name!r} is not one of the classes "
                        f"{self.classes}; name it in DATASET.CLASSNAMES, leave it out with "
                        "DATASET.EXCLUDE, or move it away"
                    )
                continue
            skipped += others
            for real, path in images.items():
                other, first = found.setdefault(real, (label, path))
                if other != label:
                    raise InputError(
                        f"{path} is the same file as {first}; an image has one class: remove a link"
                    )
        self.skipped += skipped
        for label, name in enumerate(self.classes.names):
            if not any(label == of for of, _ in found.values()):
                names = " or ".join(map(repr, self.classes.folders[label]))
                why = f" ({skipped_note(skipped)})" if skipped else ""
                raise InputError(
                    f"{folder}: class {name!r} has no images; put them in a folder named {names}"
                    f"{why}"
                )
        return [self.picture(path, label) for label, path in found.values()]

    def read_split_file(self) -> Split:
        path = self.find_file(self.settings.SPLIT_FILE, "DATASET.SPLIT_FILE")
        finder = Finder()
        given: Split = {}
        missing = []
        for side, entries in read_split_rows(path).items():
            given[side] = []
            for relative, _, classname in entries:
                label = self.label_of(classname)
                if label is None:
                    raise InputError(
                        f"{path}: {short(relative)} has the class {short(classname)}, which is not "
                        f"one of {self.classes}; name it in DATASET.CLASSNAMES"
                    )
                found = self.find_listed(finder, relative)
                if found is None:
                    missing.append(relative)
                elif not self.is_excluded(found):
                    given[side].append(self.picture(found, label))
        if missing:
            raise InputError(
                f"{path}: names {short(missing[0])}, which is not below {self.dataset_dir}"
                f"{and_more(missing, 'missing files')}; restore it or take it out of the split"
            )
        self.given_by = str(path)
        return given

    def find_listed(self, finder: Finder, relative: str) -> Path | None:
        """The image that a split file calls ``relative``, None if there is none."""
        # CoOp-family files leave out the folder that holds the images.
        return finder.find(self.dataset_dir, relative) or finder.find(
            self.dataset_dir, f"images/{relative}"
        )

    def find_file(self, name: str, setting: str) -> Path:
        """A file named in the settings: absolute, below the dataset's folder, or below this one."""
        for folder in (self.dataset_dir, Path.cwd()):
            path = folder / os.path.expanduser(name)
            if os.path.isfile(path):
                # Of the bytes before they are read: a change in between is noticed later.
                self.files_read.setdefault((name, setting), [str(path), _digest(path)])
                return path
        raise InputError(
            f"{short(name, 300)[1:-1]}: there is no such file below {self.dataset_dir} or "
            f"{Path.cwd()}; set {setting}"
        )


def _digest(path: Path) -> str:
    """Of a file's bytes, "" if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def subfolders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted, without hidden ones."""
    try:
        return sorted(e for e in folder.iterdir() if e.is_dir() and not is_hidden(e.name))
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None
