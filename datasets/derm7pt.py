"""Derm7pt: dermoscopic images of melanoma and nevus."""

from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from core.errors import InputError, and_more, short
from core.tables import read_table

from .base import MedicalDataset
from .pictures import Finder
from .splits import Split

_COLUMNS = ("diagnosis", "derm")
_INDEXES = {"train": "train_indexes.csv", "val": "valid_indexes.csv", "test": "test_indexes.csv"}


@DATASET_REGISTRY.register()
class Derm7pt(MedicalDataset):
    """827 dermoscopic images: 252 melanoma, 575 nevus (Kawahara et al., JBHI 2019).

    Read as released (``images`` and ``meta``), or from {train,val,test}/{melanoma,nevus}. The
    release's own indexes are the split. An image's subtype is its diagnosis; the release does not
    name patients.
    """

    dataset_dir = "derm7pt/release_v0"
    inner_dirs = ("release_v0",)
    source = "ask for Derm7pt at https://derm.cs.sfu.ca and unpack it there"
    class_names = ("melanoma", "nevus")
    class_aliases = (("melanoma",), ("nevus",))
    positive_class = "melanoma"
    paper_counts = (346, 161, 320)

    def read(self) -> Split:
        finder = Finder()
        meta = finder.find(self.dataset_dir, "meta/meta.csv")
        if meta is None:
            if "train" in self.split_folders():
                return self.read_split_folders()
            raise InputError(
                f"{self.dataset_dir}: has neither meta/meta.csv nor a folder 'train'; {self.source}"
            )
        self.given_by = "the release's indexes"
        rows = _read_meta(meta)
        given: Split = {}
        missing: list[str] = []
        for side, indexes in _read_indexes(finder, Path(self.dataset_dir), len(rows)).items():
            given[side] = []
            for diagnosis, derm in (rows[index] for index in indexes):
                label = self._label_of_diagnosis(diagnosis)
                if label is None:
                    continue
                found = finder.find(self.dataset_dir, f"images/{derm}")
                if found is None:
                    missing.append(derm)
                elif not self.is_excluded(found):
                    subtype = " ".join(diagnosis.split())
                    given[side].append(self.picture(found, label, subtype=subtype))
        if missing:
            raise InputError(
                f"{meta}: names {missing[0]}, which is not below {self.dataset_dir}/images"
                f"{and_more(missing, 'missing images')}; unpack the release again"
            )
        return given

    def _label_of_diagnosis(self, diagnosis: str) -> int | None:
        """The label of a diagnosis like "melanoma (in situ)" or "clark nevus", None if neither."""
        for label, name in enumerate(self.class_names):
            if name in diagnosis.lower():
                return label
        return None


def _read_meta(path: Path) -> list[tuple[str, str]]:
    """(diagnosis, dermoscopic image) of each row."""
    # The notes hold letters of several encodings; nothing of them is used.
    table = read_table(path, errors="replace")
    columns = [table.column(name) for name in _COLUMNS]
    for name, column in zip(_COLUMNS, columns, strict=True):
        if column is None:
            raise InputError(f"{path}: has no column {name!r}; unpack the release again")
    rows = []
    for number, row in table.rows:
        diagnosis, derm = (row[column] for column in columns if column)
        if not diagnosis or not derm:
            raise InputError(
                f"{path}, line {number}: has no diagnosis or no image; unpack the release again"
            )
        rows.append((diagnosis, derm))
    return rows


def _read_indexes(finder: Finder, folder: Path, n_rows: int) -> dict[str, list[int]]:
    """{"train": row numbers of meta.csv, ...} of the release's index files."""
    indexes: dict[str, list[int]] = {}
    owner: dict[int, str] = {}
    for side, name in _INDEXES.items():
        path = finder.find(folder, f"meta/{name}")
        if path is None:
            raise InputError(f"{folder / 'meta' / name}: is missing; unpack the release again")
        indexes[side] = []
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split()
        for number, line in enumerate(lines[1:], start=2):
            if not line.isdecimal() or len(line) > 9 or int(line) >= n_rows:
                raise InputError(
                    f"{path}, line {number}: {short(line)} is not a row of meta.csv, which has "
                    f"{n_rows}; unpack the release again"
                )
            if owner.setdefault(int(line), name) != name:
                raise InputError(f"{path}: row {line} is in {owner[int(line)]} too; keep one")
            indexes[side].append(int(line))
    return indexes
