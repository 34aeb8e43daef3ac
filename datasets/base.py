"""Splits, shots, base and new classes, and the card printed at load: once, for every dataset."""

import json
import os
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from dassl.data.datasets import DatasetBase, Datum

from core.errors import InputError
from core.files import atomic_write

from .pictures import Finder, check_pictures, find_pictures, is_hidden
from .splits import (
    SPLIT_NAMES,
    SPLITS,
    draw_shots,
    draw_split,
    read_split_rows,
    shared_patients,
    split_fingerprint,
)

# Joins Dassl's own cfg.DATASET.
DEFAULTS = {
    "PATH": "",  # the dataset's folder, below ROOT or absolute; "" is the class's own
    "CSV": "",  # ImageFolder: a table path,label[,split][,patient][,subtype]
    "SPLIT_FILE": "",  # JSON: {"train": [[path, label, classname], ...], "val": ..., "test": ...}
    "SPLIT_SEED": 1,  # of a split that has to be drawn, whatever the run's SEED
    "VAL_FRACTION": 0.1,  # of each class's training pictures, where no validation split is given
    "TEST_FRACTION": 0.2,  # of each class's pictures, where no test split is given
    "PATIENTS_APART": False,  # no patient on two sides of a drawn split; an error in a given one
    "PATIENT_PATTERN": "",  # regular expression with one group, searched in the file's name
    "CLASSNAMES": [],  # in the order of the labels; [] is the dataset's own
    "CLASS_FOLDERS": [],  # folder or CSV label of each class; [] is the class names
    "SUBSAMPLE_CLASSES": "all",  # all, base (first half of the classes) or new (the other)
    "SYMPTOMS": "",  # symptom file; "" is symptoms/<dataset>.json
}


class Picture(Datum):
    """A picture with its label, and what is known of it besides.

    ``id`` is its POSIX path below the dataset's folder, by which splits, views and fingerprints
    know it. ``patient`` and ``subtype`` are "" where unknown.
    """

    def __init__(self, impath, label, classname, id, patient="", subtype=""):
        super().__init__(impath=str(impath), label=label, classname=classname)
        self.id = id
        self.patient = patient
        self.subtype = subtype

    def relabelled(self, label):
        return Picture(self.impath, label, self.classname, self.id, self.patient, self.subtype)


class MedicalDataset(DatasetBase):
    """A dataset whose pictures are read, split, thinned and checked before training.

    A subclass names its classes and says in ``read`` which pictures there are; whatever split
    ``read`` leaves out is drawn here.

    Attributes of an instance, besides Dassl's:
        dataset_dir: the folder that picture identities are below.
        all_classnames: every class, also those that SUBSAMPLE_CLASSES leaves out.
        split: {"train": [Picture, ...], "val": ..., "test": ...} before shots and class halves.
        split_fingerprint: of ``split``.
        class_counts: {"train": {class name: pictures}, ...} as used.
    """

    dataset_dir = ""  # below DATASET.ROOT, unless DATASET.PATH says otherwise
    inner_dirs = ()  # folders that an archive may wrap its content in
    source = ""  # where a user gets it
    class_names = ()
    class_aliases = ()  # for each class, its other folder names
    paper_counts = None  # (train, val, test) of the release, to be compared on the card
    patients_known_apart = False  # whether drawn splits always keep patients apart

    def __init__(self, cfg):
        self.settings = SimpleNamespace(**{**DEFAULTS, **cfg.DATASET})
        self.notes = []  # lines for the card
        self._left_out = []
        self.given_by = "the folders"  # what said which splits there are, for the card
        folder = self.settings.PATH or self.dataset_dir
        if not folder:
            raise InputError("DATASET.PATH is empty; set it to the folder of your pictures")
        root = Path(cfg.DATASET.ROOT).expanduser()
        self.dataset_dir = Path(os.path.abspath(root / Path(folder).expanduser()))
        self.prepare()
        self.dataset_dir = self._find_folder()
        self.all_classnames = self._checked_classnames()
        self._labels = self._labels_by_name()

        given = self._read_split_file() if self.settings.SPLIT_FILE else self.read()
        self.split = self._completed(given)
        self._check_split()
        self.split_fingerprint = split_fingerprint(self.split)
        if self._drawn:
            self._record_split()

        used = self._few_shot(self.split, cfg.SEED)
        used = self._subsampled(used)
        self.class_counts = {
            side: Counter(picture.classname for picture in used[side]) for side in SPLITS
        }
        check_pictures(
            {picture.id: picture.impath for side in SPLITS for picture in used[side]},
            self.dataset_dir,
        )
        super().__init__(train_x=used["train"], val=used["val"], test=used["test"])
        print(self.card(), flush=True)

    # What a subclass says

    def prepare(self):
        """Called before anything is read: a dataset that the program makes itself makes it here."""

    def read(self):
        """The pictures of the splits that are given: {"train": [...]} and "val", "test" if any."""
        return self.read_split_folders()

    def find_classnames(self):
        """The class names, in the order of their labels."""
        return list(self.settings.CLASSNAMES or self.class_names)

    def describe(self, name, label):
        """What a file's name tells: (patient, subtype), "" for what it does not."""
        return "", ""

    def split_key(self, picture):
        """What a drawn split knows a picture by; the same key falls on the same side."""
        return picture.id

    # Reading

    def picture(self, path, label, patient=None, subtype=None):
        """A Picture of ``path``, described by its name where nothing better is known."""
        identity = Path(os.path.relpath(path, self.dataset_dir)).as_posix()
        try:
            identity.encode()
        except UnicodeEncodeError:
            raise InputError(f"{identity!r}: a file name that is no UTF-8; rename it") from None
        known_patient, known_subtype = self.describe(Path(path).name, label)
        if self.settings.PATIENT_PATTERN:
            known_patient = self._patient_by_pattern(Path(path).name)
        return Picture(
            path,
            label,
            self.all_classnames[label],
            identity,
            known_patient if patient is None else patient,
            known_subtype if subtype is None else subtype,
        )

    def label_of(self, name):
        """The label of a class name, folder name or alias, in any case of letters; None if none."""
        return self._labels.get(name.strip().casefold())

    def split_folders(self):
        """The split folders there are, by split, under any usual name and in any case."""
        found = {}
        for entry in _subfolders(self.dataset_dir):
            side = SPLIT_NAMES.get(entry.name.lower())
            if side in found:
                raise InputError(f"{entry}: {found[side].name} is there too; merge the two folders")
            if side:
                found[side] = entry
        return found

    def read_split_folders(self):
        """Pictures of {train,val,test}/<class>/..., of the splits that there are."""
        folders = self.split_folders()
        if "train" not in folders:
            raise InputError(f"{self.dataset_dir}: there is no folder 'train' in it; {self.source}")
        return {side: self.read_class_folders(folder) for side, folder in folders.items()}

    def read_class_folders(self, folder):
        """Pictures of <class>/..., every class of which has to have some."""
        pictures = {label: [] for label in range(len(self.all_classnames))}
        for entry in _subfolders(folder):
            label = self.label_of(entry.name)
            paths, others = find_pictures(entry)
            if label is None:
                if paths:
                    raise InputError(
                        f"{entry}: holds pictures, but {entry.name!r} is none of the classes "
                        f"{self._class_list()}; name it in DATASET.CLASSNAMES or move it away"
                    )
                continue
            self._left_out.extend(others)
            pictures[label].extend(self.picture(path, label) for path in paths)
        self._left_out.extend(
            entry.name
            for entry in folder.iterdir()
            if entry.is_file() and not is_hidden(entry.name)
        )
        for label, found in pictures.items():
            if not found:
                raise InputError(
                    f"{folder}: class {self.all_classnames[label]!r} has no pictures; put them in "
                    f"a folder named {' or '.join(map(repr, self._folder_names(label)))}"
                )
        return [picture for found in pictures.values() for picture in found]

    def _find_folder(self):
        if not self.dataset_dir.is_dir():
            raise InputError(
                f"{self.dataset_dir}: there is no such folder; {self.source or 'put it there'}, "
                "or set DATASET.PATH or --root"
            )
        for inner in self.inner_dirs:
            if (self.dataset_dir / inner).is_dir():
                return self.dataset_dir / inner
        return self.dataset_dir

    def _checked_classnames(self):
        names = [str(name).strip() for name in self.find_classnames()]
        if self.class_names and len(names) != len(self.class_names):
            raise InputError(
                f"DATASET.CLASSNAMES has {len(names)} names; {type(self).__name__} has the classes "
                f"{', '.join(self.class_names)}"
            )
        if not all(names):
            raise InputError("DATASET.CLASSNAMES has an empty name; name every class")
        if len(names) < 2:
            raise InputError(f"{self.dataset_dir}: there are {len(names)} classes; two are needed")
        folders = self.settings.CLASS_FOLDERS
        if folders and len(folders) != len(names):
            raise InputError(
                f"DATASET.CLASS_FOLDERS has {len(folders)} names for {len(names)} classes; "
                "give one for each, in the same order"
            )
        return names

    def _folder_names(self, label):
        if self.settings.CLASS_FOLDERS:
            return [str(self.settings.CLASS_FOLDERS[label])]
        aliases = self.class_aliases[label] if self.class_aliases else ()
        return list(dict.fromkeys([*aliases, self.all_classnames[label]]))

    def _labels_by_name(self):
        labels = {}
        for label, classname in enumerate(self.all_classnames):
            # The class name itself counts too: a split file has it where folders have another.
            for name in {*self._folder_names(label), classname}:
                if labels.setdefault(name.strip().casefold(), label) != label:
                    raise InputError(
                        f"two classes are named {name!r}, letters' case apart; rename one in "
                        "DATASET.CLASSNAMES or DATASET.CLASS_FOLDERS"
                    )
        return labels

    def _class_list(self):
        return ", ".join(self.all_classnames)

    def _patient_by_pattern(self, name):
        try:
            pattern = re.compile(self.settings.PATIENT_PATTERN)
        except re.error as error:
            raise InputError(f"DATASET.PATIENT_PATTERN is no regular expression: {error}") from None
        if pattern.groups != 1:
            raise InputError(
                f"DATASET.PATIENT_PATTERN '{self.settings.PATIENT_PATTERN}' should have one group, "
                r"the patient, as in '^(\d+)_'"
            )
        match = pattern.search(name)
        return (match[1] or "") if match else ""

    # Splits

    def _read_split_file(self):
        path = self.find_file(self.settings.SPLIT_FILE, "DATASET.SPLIT_FILE")
        rows = read_split_rows(path)
        finder = Finder()
        given, missing = {}, []
        for side, entries in rows.items():
            given[side] = []
            for relative, _, classname in entries:
                label = self.label_of(classname)
                if label is None:
                    raise InputError(
                        f"{path}: {relative} has the class {classname!r}, none of "
                        f"{self._class_list()}; name it in DATASET.CLASSNAMES"
                    )
                # CoOp-family files leave out the folder that holds the pictures.
                found = finder.find(self.dataset_dir, relative) or finder.find(
                    self.dataset_dir, f"images/{relative}"
                )
                if found is None:
                    missing.append(relative)
                else:
                    given[side].append(self.picture(found, label))
        if missing:
            raise InputError(
                f"{path}: names {missing[0]}, which is not below {self.dataset_dir}"
                f"{_and_more(missing, 'missing files')}; restore it or take it out of the split"
            )
        self.given_by = str(path)
        return given

    def find_file(self, name, setting):
        """A file named in the settings: absolute, below the dataset's folder, or below this one."""
        name = Path(name).expanduser()
        for folder in (self.dataset_dir, Path.cwd()):
            if (folder / name).is_file():
                return folder / name
        raise InputError(
            f"{name}: there is no such file below {self.dataset_dir} or {Path.cwd()}; set {setting}"
        )

    def _completed(self, given):
        """The three splits, those not given drawn from the training pictures."""
        split = {side: pictures for side, pictures in given.items() if pictures}
        if "train" not in split:
            raise InputError(f"{self.dataset_dir}: there are no training pictures in it")
        known = any(picture.patient for pictures in split.values() for picture in pictures)
        if self.settings.PATIENTS_APART and not known:
            raise InputError(
                "DATASET.PATIENTS_APART is on, but no patient is known; set "
                "DATASET.PATIENT_PATTERN or give a CSV with a column 'patient'"
            )
        apart = known and (self.settings.PATIENTS_APART or self.patients_known_apart)
        fractions = {"test": self.settings.TEST_FRACTION, "val": self.settings.VAL_FRACTION}
        self._drawn = [side for side in fractions if side not in split]
        if len(split) > 1:
            sides = ", ".join(side for side in SPLITS if side in split)
            self.notes.append(f"{sides}: given by {self.given_by}")
        for side in self._drawn:
            try:
                split["train"], split[side] = draw_split(
                    split["train"],
                    fractions[side],
                    f"{self.settings.SPLIT_SEED}/{side}",
                    self.split_key,
                    (lambda picture: picture.patient) if apart else (lambda picture: ""),
                )
            except InputError as error:
                raise InputError(
                    f"{self.dataset_dir}: no {side} split can be drawn: {error}"
                ) from None
        if self._drawn:
            how = "patients kept apart" if apart else "pictures at random"
            self.notes.append(
                f"{', '.join(self._drawn)}: drawn with seed {self.settings.SPLIT_SEED}, {how}"
            )
        return {side: sorted(split[side], key=lambda picture: picture.id) for side in SPLITS}

    def _check_split(self):
        seen = {}
        for side in SPLITS:
            counts = Counter(picture.label for picture in self.split[side])
            for label, name in enumerate(self.all_classnames):
                if counts[label]:
                    continue
                if side == "val":
                    self.notes.append(f"val has no picture of {name!r}")
                    continue
                raise InputError(
                    f"{self.dataset_dir}: the {side} split has no picture of the class {name!r}; "
                    "add some, or take the class out"
                )
            for picture in self.split[side]:
                if picture.id in seen:
                    raise InputError(
                        f"{picture.impath}: stands in {seen[picture.id]} and again in {side}; "
                        "keep it in one"
                    )
                seen[picture.id] = side
        if self.settings.PATIENTS_APART:
            for (one, other), patients in shared_patients(self.split).items():
                raise InputError(
                    f"{self.dataset_dir}: DATASET.PATIENTS_APART is on, but the given split has "
                    f"{_some(patients)} in both {one} and {other}; mend the split or turn it off"
                )

    def write_split(self, path):
        """Write the whole split as readable JSON, one picture a line, with its fingerprint.

        Code of the CoOp family reads it too.
        """
        label = {name: index for index, name in enumerate(self.all_classnames)}
        lines = [f'"fingerprint": {json.dumps(self.split_fingerprint)}']
        for side in SPLITS:
            rows = ",\n    ".join(
                json.dumps([picture.id, label[picture.classname], picture.classname])
                for picture in self.split[side]
            )
            lines.append(f'"{side}": [\n    {rows}\n  ]')
        with atomic_write(path) as file:
            file.write("{\n  " + ",\n  ".join(lines) + "\n}\n")

    def _record_split(self):
        """Leave what was drawn beside the pictures, where the folder may be written to.

        The name holds the fingerprint, so no record ever replaces a different one; nothing reads it
        unless DATASET.SPLIT_FILE names it.
        """
        folder = self.dataset_dir / "splits"
        path = folder / f"{type(self).__name__.lower()}-{self.split_fingerprint}.json"
        if not path.exists() and _is_writable(folder if folder.exists() else self.dataset_dir):
            self.write_split(path)

    def _few_shot(self, split, seed):
        shots = self.settings.NUM_SHOTS
        if shots < 1:
            return split
        least = min(Counter(picture.label for picture in split["train"]).values())
        fewer = f" (fewer where a class has fewer; the least is {least})" if least < shots else ""
        self.notes.append(
            f"{shots} shots a class: drawn with seed {seed} from {len(split['train']):,}{fewer}"
        )
        return {
            "train": draw_shots(split["train"], shots, f"{seed}/train"),
            # CoOp's rule: validation may not know more than a few-shot user would have.
            "val": draw_shots(split["val"], min(shots, 4), f"{seed}/val"),
            "test": split["test"],
        }

    def _subsampled(self, split):
        part = self.settings.SUBSAMPLE_CLASSES
        if part == "all":
            return split
        if part not in ("base", "new"):
            raise InputError(f"DATASET.SUBSAMPLE_CLASSES is {part!r}; choose all, base or new")
        half = (len(self.all_classnames) + 1) // 2
        labels = range(half) if part == "base" else range(half, len(self.all_classnames))
        self.notes.append(f"the {part} classes, {len(labels)} of {len(self.all_classnames)}")
        return {
            side: [
                picture.relabelled(picture.label - labels.start)
                for picture in pictures
                if picture.label in labels
            ]
            for side, pictures in split.items()
        }

    # The card

    def card(self):
        """Counts by class, split, subtype and patient, who is on two sides, how it was split."""
        used = {"train": self.train_x, "val": self.val, "test": self.test}
        total = sum(map(len, used.values()))
        rows = []
        for name in self.classnames:
            rows.append((name, [self.class_counts[side][name] for side in SPLITS]))
            of_class = [[p for p in used[side] if p.classname == name] for side in SPLITS]
            subtypes = sorted({p.subtype for pictures in of_class for p in pictures})
            for subtype in subtypes if subtypes not in ([""], [name]) else []:
                counts = [sum(p.subtype == subtype for p in pictures) for pictures in of_class]
                rows.append((f"  {subtype or '(subtype not known)'}", counts))
        rows.append(("pictures", [len(used[side]) for side in SPLITS]))
        patients = [{p.patient for p in used[side]} - {""} for side in SPLITS]
        if any(patients):
            rows.append(("patients", [len(found) for found in patients]))
        width = max(len(name) for name, _ in rows)
        lines = [
            f"{type(self).__name__}: {total:,} pictures in {self.dataset_dir}",
            f"{'':{width}}" + "".join(f"{side:>8}" for side in SPLITS),
        ]
        lines += [f"{name:{width}}" + "".join(f"{n:>8,}" for n in counts) for name, counts in rows]
        lines += self._patient_lines(used, any(patients))
        lines += self.notes
        counts = tuple(len(self.split[side]) for side in SPLITS)
        if self.paper_counts and counts != self.paper_counts:
            lines.append(
                f"the paper's counts are {'/'.join(f'{n:,}' for n in self.paper_counts)}, these "
                f"{'/'.join(f'{n:,}' for n in counts)}: not the whole release, or another split"
            )
        if self._left_out:
            lines.append(f"left out as no pictures: {_some(self._left_out)}")
        lines.append(f"split fingerprint: {self.split_fingerprint}")
        return "\n".join(lines)

    def _patient_lines(self, used, known):
        if not known:
            return ["patients: not known, so whether one is on both sides is not known"]
        lines = []
        for (one, other), patients in shared_patients(used).items():
            both = set(patients)
            pictures = sum(picture.patient in both for picture in used[other])
            lines.append(
                f"in both {one} and {other}: {len(patients):,} patients, with {pictures:,} of the "
                f"{len(used[other]):,} {other} pictures: {_some(patients)}"
            )
        return lines or ["patients on two sides: none"]


def _subfolders(folder):
    return sorted(
        entry for entry in Path(folder).iterdir() if entry.is_dir() and not is_hidden(entry.name)
    )


def _is_writable(folder):
    # Root may write anywhere; a folder marked read-only is left alone all the same.
    return os.access(folder, os.W_OK) and bool(os.stat(folder).st_mode & 0o222)


def _some(names, most=8):
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def _and_more(items, what):
    return f" (and {len(items) - 1:,} more {what})" if len(items) > 1 else ""
