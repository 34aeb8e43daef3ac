"""What every dataset does, in order: find, split, subsample and check its images; print a card."""

import contextlib
import gc
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dassl.data.datasets import DatasetBase

from core.errors import InputError, short

from .card import card
from .checks import FileMemory, check_pictures, find_duplicates
from .classes import ClassNames
from .dicom import rendering_of
from .dicom_patients import add_dicom_patients
from .finding import ImageSource
from .kept_reading import KeptReading, Reading
from .pictures import Picture, skipped_note
from .settings import DEFAULTS, checked_settings
from .split_files import write_split
from .splits import (
    SPLITS,
    Completed,
    Split,
    check_duplicates,
    check_sides,
    class_half,
    complete,
    few_shot,
    pooled,
    split_fingerprint,
)

__all__ = ["DEFAULTS", "MedicalDataset", "Picture"]


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Pause Python's search for circular garbage.

    A load makes objects for each image and no circles; with 100,000 images, searching them again
    and again takes a third of the time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class MedicalDataset(ImageSource, DatasetBase):
    """A dataset whose images are found, split, subsampled and checked before training.

    A subclass names its classes and says in ``read`` which images there are; whatever split
    ``read`` leaves out is drawn here.

    Attributes of an instance, besides Dassl's:
        dataset_dir: the folder that image identities are below.
        all_classnames: every class, also those that SUBSAMPLE_CLASSES leaves out.
        positive: the name of the positive class, "" where none is named.
        findings: what an image may show several of; empty where it has one class.
        split: {"train": [Picture, ...], "val": ..., "test": ...} before shots and class halves.
        used: the same after shots and class halves.
        split_fingerprint: of ``split``.
        class_counts: {"train": {class name: images}, ...} as used.
        duplicates: groups of images whose files hold the same bytes.
    """

    dataset_dir: Any = ""  # below DATASET.ROOT, unless DATASET.PATH says otherwise
    inner_dirs: Sequence[str] = ()  # folders that an archive may wrap its content in
    source = ""  # where a user gets it
    class_names: Sequence[str] = ()
    class_aliases: Sequence[Sequence[str]] = ()  # for each class, its other folder names
    positive_class = ""  # one of class_names
    paper_counts: tuple[int, int, int] | None = None  # of the release, to compare on the card
    patients_known_apart = False  # whether drawn splits always keep patients apart
    findings: Sequence[str] = ()
    duplicates_allowed = False  # whether the release's protocol has copies on two sides
    refuses_duplicates = True  # a command that lists copies turns this off
    keeps_reading = False  # whether all that is read are files that settings name, and images

    @_collector_paused()
    def __init__(self, cfg: Any):
        self.settings = checked_settings(cfg.DATASET)
        ImageSource.__init__(self)
        # Lines for the card.
        self.notes: list[str] = [self.settings.NOTE] if self.settings.NOTE else []
        self._memory: FileMemory | None = None
        self._names: list[str] = []
        self.dataset_dir = self._named_folder(cfg.DATASET.ROOT)
        self.prepare()
        self.dataset_dir = self._found_folder()
        kept = KeptReading(self) if self.keeps_reading else None
        self._known = kept.recall() if kept else None
        self.classes = self._class_names()
        self.all_classnames = self.classes.names
        positive = self._positive_label()
        reading = self._reading()
        self.split, self.split_fingerprint = reading.split, reading.fingerprint
        self.duplicates, self.skipped = reading.duplicates, reading.skipped
        self.notes = list(reading.notes)

        used, notes = few_shot(self.split, self.settings.NUM_SHOTS, cfg.SEED)
        self.notes += notes
        used, notes = class_half(used, self.settings.SUBSAMPLE_CLASSES, len(self.all_classnames))
        self.notes += notes
        self.class_counts = {side: self.counts_of(used[side]) for side in SPLITS}
        self._check(used, reading, kept)
        self.used = used
        self._set_lists(used)
        name = self.all_classnames[positive] if positive is not None else ""
        self.positive = name if name in self.classnames else ""
        if self.skipped:
            print(f"{self.dataset_dir}: {skipped_note(self.skipped)}", file=sys.stderr)
        print(card(self), flush=True)

    # What a subclass says

    def prepare(self) -> None:
        """Called before anything is read; a synthetic dataset draws its images here."""

    def read(self) -> Split:
        """The images of the splits that are given: {"train": [...]} and "val", "test" if any."""
        return self.read_split_folders()

    def find_classnames(self) -> list[str]:
        """The class names, in the order of their labels."""
        return list(self.settings.CLASSNAMES or self.class_names)

    def split_key(self, picture: Picture) -> str:
        """The key of an image; images with the same key are drawn into the same split."""
        return picture.id

    def _set_lists(self, used: Split) -> None:
        # Lists of their own: Dassl's hold any Datum.
        DatasetBase.__init__(
            self, train_x=list(used["train"]), val=list(used["val"]), test=list(used["test"])
        )

    def counts_of(self, pictures: Sequence[Picture]) -> Counter[str]:
        """Class name -> images."""
        return Counter(picture.classname for picture in pictures)

    def completed(
        self, given: Split, settings: Any, apart: bool, together: Sequence[list[Picture]]
    ) -> Completed:
        """The three splits, drawn where they are not given, and checked; as for ``complete``."""
        done = complete(given, settings, apart, self.split_key, together)
        notes = check_sides(done.split, self.all_classnames, self.settings.PATIENTS_APART)
        return replace(done, notes=done.notes + notes)

    # The folder and the classes

    def _named_folder(self, root: str) -> Path:
        folder = self.settings.PATH or self.dataset_dir
        if not folder:
            raise InputError("DATASET.PATH is empty; set it to the folder of your images")
        try:
            return Path(os.path.abspath(Path(root).expanduser() / Path(folder).expanduser()))
        except RuntimeError as error:  # ~somebody
            raise InputError(f"DATASET.ROOT {root}, DATASET.PATH {folder}: {error}") from None

    def _found_folder(self) -> Path:
        if not os.path.isdir(self.dataset_dir):
            raise InputError(
                f"{short(str(self.dataset_dir), 300)[1:-1]}: there is no such folder; "
                f"{self.source or 'put it there'}, or set DATASET.PATH or --root"
            )
        for inner in self.inner_dirs:
            if (self.dataset_dir / inner).is_dir():
                return self.dataset_dir / inner
        return self.dataset_dir

    def _class_names(self) -> ClassNames:
        names = self._known.names if self._known else self.find_classnames()
        self._names = names
        if self.class_names and len(names) != len(self.class_names):
            raise InputError(
                f"DATASET.CLASSNAMES has {len(names)} names; {type(self).__name__} has the classes "
                f"{', '.join(self.class_names)}"
            )
        if len(names) < 2:
            raise InputError(
                f"{self.dataset_dir}: the number of classes is {len(names)}; at least 2 are needed"
            )
        return ClassNames(names, self.settings.CLASS_FOLDERS, self.class_aliases)

    def _positive_label(self) -> int | None:
        if self.settings.POSITIVE:
            label = self.label_of(self.settings.POSITIVE)
            if label is None:
                raise InputError(
                    f"DATASET.POSITIVE is {short(self.settings.POSITIVE)}; choose one of the "
                    f"classes {self.classes}"
                )
            return label
        return list(self.class_names).index(self.positive_class) if self.positive_class else None

    # Splits

    def _reading(self) -> Reading:
        """The images and their splits, as known from an earlier start or read now."""
        reading = self._known or self._read_and_split()
        self._known = None
        if self.refuses_duplicates and not self._allows_duplicates():
            check_duplicates(reading.duplicates, reading.split)
        return reading

    def _read_and_split(self) -> Reading:
        given = self.read_split_file() if self.settings.SPLIT_FILE else self.read()
        given = self.without_excluded(given)
        given = {side: pictures for side, pictures in given.items() if pictures}
        if len(given) > 1 and self.settings.SPLIT == "released":
            sides = ", ".join(side for side in SPLITS if side in given)
            self.notes.append(f"{sides}: given by {self.given_by}")
        self._memory = FileMemory(self.dataset_dir)
        every = [picture for pictures in given.values() for picture in pictures]
        if self.settings.DICOM_PATIENTS and not self.settings.PATIENT_PATTERN:
            self.notes += add_dicom_patients(every, self._memory)
        duplicates = find_duplicates(every, self._memory)
        done = self._completed(given, duplicates)
        self.notes += done.notes + self.exclusion_notes()
        return Reading(
            names=self._names,
            split=done.split,
            duplicates=duplicates,
            notes=self.notes,
            skipped=self.skipped,
            drawn=bool(done.drawn),
            fingerprint=split_fingerprint(done.split),
        )

    def _allows_duplicates(self) -> bool:
        return self.settings.ALLOW_DUPLICATES or self.duplicates_allowed

    def _completed(self, given: Split, duplicates: Sequence[list[Picture]]) -> Completed:
        apart = self.settings.PATIENTS_APART or self.patients_known_apart
        anew = self.settings.SPLIT == "patients"
        together = duplicates if anew or not self._allows_duplicates() else []
        settings = self.settings
        try:
            if anew:
                given, settings, notes = pooled(given, settings)
                self.notes += notes
                apart = True
            return self.completed(given, settings, apart, together)
        except InputError as error:
            raise InputError(f"{self.dataset_dir}: {error}") from None

    def _check(self, used: Split, reading: Reading, kept: KeptReading | None) -> None:
        """Decode the images that were not decoded before; keep what was read."""
        unchecked = reading.unchecked
        pictures = {
            p.id: p.impath
            for side in SPLITS
            for p in used[side]
            if unchecked is None or p.id in unchecked
        }
        if pictures:
            memory = self._memory or FileMemory(self.dataset_dir)
            check_pictures(pictures, memory, rendering_of(self.settings))
        self._memory = None  # of 100,000 images, 100 MB
        if kept and unchecked is None:
            every = {p.id for side in SPLITS for p in reading.split[side]}
            reading.unchecked = every - pictures.keys()
            kept.keep(reading)
        elif kept and pictures:
            reading.unchecked = unchecked - pictures.keys()
            kept.keep_checked(reading)
        if reading.drawn:
            self._record_split()

    def write_split(self, path: str | Path) -> None:
        """Write the whole split as a split file; code of the CoOp family reads it too."""
        write_split(path, self.split, self.all_classnames)

    def _record_split(self) -> None:
        """Leave what was drawn beside the images, where the folder may be written to.

        The name holds the fingerprint, so no record ever replaces a different one; nothing reads it
        unless DATASET.SPLIT_FILE names it.
        """
        folder = self.dataset_dir / "splits"
        path = folder / f"{type(self).__name__.lower()}-{self.split_fingerprint}.json"
        if not path.exists() and _is_writable(folder if folder.exists() else self.dataset_dir):
            self.write_split(path)


def _is_writable(folder: Path) -> bool:
    # Root may write anywhere; a folder marked read-only is left alone all the same.
    return os.access(folder, os.W_OK) and bool(os.stat(folder).st_mode & 0o222)
