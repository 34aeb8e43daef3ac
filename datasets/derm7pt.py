"""Derm7pt: dermoscopic pictures of melanoma and nevus."""

import csv

from dassl.data.datasets import DATASET_REGISTRY

from core.errors import InputError

from .base import MedicalDataset
from .pictures import Finder

_COLUMNS = ("diagnosis", "derm")
_INDEXES = {"train": "train_indexes.csv", "val": "valid_indexes.csv", "test": "test_indexes.csv"}


@DATASET_REGISTRY.register()
class Derm7pt(MedicalDataset):
    """827 dermoscopic pictures: 252 melanoma, 575 nevus (Kawahara et al., JBHI 2019).

    Read as released (``images`` and ``meta``), or from {train,val,test}/{melanoma,nevus}. The
    release's own indexes are the split. A picture's subtype is its diagnosis; whose it is, the
    release does not say.
    """

    dataset_dir = "derm7pt/release_v0"
    inner_dirs = ("release_v0",)
    source = "ask for Derm7pt at https://derm.cs.sfu.ca and unpack it there"
    class_names = ("melanoma", "nevus")
    class_aliases = (("melanoma",), ("nevus",))
    paper_counts = (346, 161, 320)

    def read(self):
        finder = Finder()
        meta = finder.find(self.dataset_dir, "meta/meta.csv")
        if meta is None:
            if "train" in self.split_folders():
                return self.read_split_folders()
            raise InputError(
                f"{self.dataset_dir}: has neither meta/meta.csv nor a folder 'train'; {self.source}"
            )
        self.given_by = "the release's indexes"
        rows = _read_table(meta)
        given, missing, owner = {}, [], {}
        for side, name in _INDEXES.items():
            path = finder.find(self.dataset_dir, f"meta/{name}")
            if path is None:
                raise InputError(f"{meta.parent / name}: is missing; unpack the release again")
            given[side] = []
            for index in _read_indexes(path, len(rows)):
                if owner.setdefault(index, path) is not path:
                    raise InputError(f"{path}: row {index} is in {owner[index].name} too; keep one")
                row = rows[index]
                label = self._label_of_diagnosis(row["diagnosis"])
                if label is None:
                    continue
                picture = finder.find(self.dataset_dir, f"images/{row['derm'].strip()}")
                if picture is None:
                    missing.append(row["derm"])
                    continue
                subtype = " ".join(row["diagnosis"].split())
                given[side].append(self.picture(picture, label, subtype=subtype))
        if missing:
            more = f" (and {len(missing) - 1:,} more missing pictures)" if missing[1:] else ""
            raise InputError(
                f"{meta}: names {missing[0]}, which is not below {self.dataset_dir / 'images'}"
                f"{more}; unpack the release again"
            )
        return given

    def _label_of_diagnosis(self, diagnosis):
        """The label of a diagnosis like "melanoma (in situ)" or "clark nevus", None if neither."""
        for label, name in enumerate(self.class_names):
            if name in diagnosis.lower():
                return label
        return None


def _read_table(path):
    # The notes hold letters of several encodings; nothing of them is used.
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.DictReader(file)
        columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
        for column in _COLUMNS:
            if column not in columns:
                raise InputError(f"{path}: has no column {column!r}; unpack the release again")
        reader.fieldnames = columns
        rows = list(reader)
    for number, row in enumerate(rows):
        if not all(row[column] for column in _COLUMNS):
            raise InputError(
                f"{path}: row {number} has no diagnosis or no picture; unpack it again"
            )
    return rows


def _read_indexes(path, n_rows):
    lines = path.read_text(encoding="utf-8-sig").split()
    indexes = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.isdigit() or int(line) >= n_rows:
            raise InputError(
                f"{path}, line {number}: {line!r} is no row of meta.csv, which has {n_rows}; "
                "unpack the release again"
            )
        indexes.append(int(line))
    return indexes
