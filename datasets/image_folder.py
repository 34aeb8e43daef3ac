"""A user's own images: a folder for each class, or a table."""

import re
from functools import cached_property
from pathlib import Path
from typing import Any

from dassl.data.datasets import DATASET_REGISTRY

from core.errors import InputError, and_more, short
from core.names import name_key
from core.tables import Table, read_table

from .base import MedicalDataset
from .finding import subfolders
from .image_tables import (
    ONE_HOT,
    SplitLists,
    is_list,
    join,
    keep_rows,
    read_lists,
    with_one_hot_labels,
)
from .pictures import Finder
from .settings import FIELDS
from .split_files import names_by_label, read_split_rows
from .splits import SPLIT_NAMES, SPLITS, Split

Row = dict[str, str]  # of a table: "path" and "label", and of FIELDS what else it has
# Marks between the labels of one image: "Cardiomegaly|Emphysema".
_SEVERAL = re.compile(r"[|;]")


@DATASET_REGISTRY.register()
class ImageFolder(MedicalDataset):
    """Images described by a YAML file alone; see ``configs/datasets/example.yaml``.

    Read from <class>/..., {train,val,test}/<class>/..., a table ``DATASET.CSV`` with the columns
    path,label[,split][,patient][,subtype] (or as ``DATASET.CSV_COLUMNS`` calls them), or a split
    file. What is not given is drawn by seed, with every class on each side in proportion, and
    patients apart where they are known.
    """

    source = (
        "put your images in folders train/<class>/ (for a known dataset, its file in "
        "configs/datasets says where to get it)"
    )
    patients_known_apart = True
    keeps_reading = True

    def prepare(self) -> None:
        if not self.settings.PATH:
            raise InputError("DATASET.PATH is empty; set it to the folder of your images")

    def find_classnames(self) -> list[str]:
        """The YAML's names, else those of the table, the split file or the folders, sorted."""
        if self.settings.CLASSNAMES or self.settings.CLASS_FOLDERS:
            return list(self.settings.CLASSNAMES or self.settings.CLASS_FOLDERS)
        if self.settings.SPLIT_FILE:
            path = self.find_file(self.settings.SPLIT_FILE, "DATASET.SPLIT_FILE")
            names = names_by_label(path, read_split_rows(path))
            for name in names:
                self._check_one_label(name, str(path))
            return names
        if self.settings.CSV:
            return sorted({row["label"] for _, row in self._table})
        folder = self.split_folders().get("train", self.dataset_dir)
        return [entry.name for entry in subfolders(folder) if self.files_of(entry)[0]]

    def read(self) -> Split:
        if self.settings.CSV:
            return self._read_table()
        if self.split_folders():
            return self.read_split_folders()
        return {"train": self.read_class_folders(self.dataset_dir)}

    # A table

    @cached_property
    def _csv(self) -> Path:
        return self.find_file(self.settings.CSV, "DATASET.CSV")

    @cached_property
    def _table(self) -> list[tuple[str, Row]]:
        """Pairs of a row's place and the row, without rows that are excluded, of all tables."""
        tables = {"": self._csv}
        for side, name in self.settings.CSV_SPLITS.items():
            if name and not is_list(name):
                tables[side] = self.find_file(name, f"DATASET.CSV_SPLITS.{side}")
        rows = [pair for side, path in tables.items() for pair in self._rows_of(path, side)]
        if self.settings.EXCLUDE:
            rows = [
                (where, row)
                for where, row in rows
                if not self.is_excluded(self.dataset_dir / row["path"].replace("\\", "/"))
            ]
        if not rows:
            raise InputError(f"{self._csv}: has no images; write one in a line")
        return self._listed(rows)

    def _rows_of(self, path: Path, side: str) -> list[tuple[str, Row]]:
        """The rows of one table; ``side`` is the split of all of them, "" if the table says it."""
        table = keep_rows(read_table(path), self.settings.CSV_ROWS)
        if self.settings.CSV_JOIN:
            other = read_table(self.find_file(self.settings.CSV_JOIN, "DATASET.CSV_JOIN"))
            table = join(table, other, str(self.settings.CSV_COLUMNS["path"]))
        if self.settings.CSV_ONE_HOT:
            table = self._with_labels(table)
        columns = self._columns(table)
        rows = []
        for number, cells in table.rows:
            row = {field: cells[column] for field, column in columns.items()}
            where = f"{path}, line {number}"
            for field in ("path", "label"):
                if not row[field]:
                    raise InputError(f"{where}: its {columns[field]} is empty; fill it in")
            self._check_one_label(row["label"], f"{where}, column {columns['label']}")
            rows.append((where, row | {"split": side} if side else row))
        return rows

    def _with_labels(self, table: Table) -> Table:
        """``table`` with a column ``ONE_HOT`` of labels, from its columns of 0 and 1."""
        return with_one_hot_labels(table, self._one_hot_columns())

    def _one_hot_columns(self) -> list[str]:
        names = self.settings.CLASS_FOLDERS or self.settings.CLASSNAMES
        if not names:
            raise InputError(
                "DATASET.CSV_ONE_HOT is on, but no columns are named; name them in "
                "DATASET.CLASS_FOLDERS"
            )
        return list(map(str, names))

    def _columns(self, table: Table) -> dict[str, str]:
        """Field -> the column of ``table`` that tells it."""
        columns = {}
        for field in FIELDS:
            name = str(self.settings.CSV_COLUMNS[field])
            if field == "label" and self.settings.CSV_ONE_HOT:
                name = ONE_HOT
            column = table.column(name) if name else None
            if column is not None:
                columns[field] = column
            elif field in ("path", "label") or name not in ("", field):
                raise InputError(
                    f"{table.path}: has no column {short(name)}, only "
                    f"{', '.join(filter(None, table.columns)) or 'none'}; set "
                    f"DATASET.CSV_COLUMNS.{field} to the table's own name for it"
                )
        return columns

    def _listed(self, rows: list[tuple[str, Row]]) -> list[tuple[str, Row]]:
        """The rows with the splits that lists give; those that lists leave out are left out."""
        names = {
            side: self.find_file(name, f"DATASET.CSV_SPLITS.{side}")
            for side, name in self.settings.CSV_SPLITS.items()
            if is_list(name)
        }
        if not names:
            return rows
        lists: SplitLists = read_lists(names)
        sides = [lists.side(row["path"]) for _, row in rows]
        if left_out := sides.count(None):
            self.notes.append(f"left out, in no list of DATASET.CSV_SPLITS: {left_out:,} images")
        return [
            (where, row | {"split": side})
            for (where, row), side in zip(rows, sides, strict=True)
            if side
        ]

    def _check_one_label(self, label: str, where: str) -> None:
        if not _SEVERAL.search(label):
            return
        named = [*self.settings.CLASSNAMES, *self.settings.CLASS_FOLDERS]
        if name_key(label) not in {name_key(str(n)) for n in named}:
            raise InputError(
                f"{where}: {short(label)} is several labels of one image, and an image has one "
                "class here; set DATASET.MULTI_LABEL True, remove such lines, or name it in "
                "DATASET.CLASSNAMES if it is one class"
            )

    def _read_table(self) -> Split:
        self.given_by = str(self._csv)
        finder = Finder()
        given: Split = {side: [] for side in SPLITS}
        missing: list[tuple[str, str]] = []
        seen: dict[str, tuple[str, Row]] = {}
        for where, row in self._table:
            label, side = self._label(row["label"], where), self._side(row, where)
            found = self._find(finder, row["path"], where)
            if found is None:
                missing.append((where, row["path"]))
                continue
            first = seen.setdefault(found, (where, row))
            if first[0] != where:
                self._check_repeat(where, row, *first)
                continue
            patient, subtype = row.get("patient") or None, row.get("subtype") or None
            given[side].append(self.picture(found, label, patient, subtype))
        if missing:
            where, name = missing[0]
            raise InputError(
                f"{where}: {short(name)} is not below {self.dataset_dir}"
                f"{and_more(missing, 'missing files')}; restore it or remove the line"
            )
        if repeats := len(self._table) - len(seen):
            self.notes.append(f"rows that repeat an image: {repeats:,}, each image read once")
        del self._table  # of 100,000 images, 60 MB
        return given

    def _check_repeat(self, where: str, row: Row, first: str, first_row: Row) -> None:
        """Raise InputError where two rows of one image are not allowed, or do not agree."""
        place = first.removeprefix(f"{self._csv}, ")
        if not self.settings.CSV_REPEATS:
            raise InputError(f"{where}: {row['path']} is in {place} already; keep one")
        differing = [field for field in row if row[field] != first_row[field]]
        if differing:
            raise InputError(
                f"{where}: {row['path']} is in {place} already, with another {differing[0]} "
                f"({short(row[differing[0]])}, not {short(first_row[differing[0]])}); correct one"
            )

    def _label(self, text: str, where: str) -> Any:
        label = self.label_of(text)
        if label is None:
            raise InputError(
                f"{where}: the label {short(text)} is not one of {self.classes}; name it "
                "in DATASET.CLASSNAMES or, where it is called otherwise, DATASET.CLASS_FOLDERS"
            )
        return label

    def _side(self, row: Row, where: str) -> str:
        side = SPLIT_NAMES.get(row.get("split", "train").lower())
        if side is None:
            raise InputError(
                f"{where}: the split {short(row['split'])} is not one of train, val, test"
            )
        return side

    def _find(self, finder: Finder, name: str, where: str) -> str | None:
        # Paths are the dataset's; a table kept elsewhere may also have them beside itself.
        try:
            return finder.picture_path_of(self.dataset_dir, name) or finder.path_of(
                self._csv.parent, name
            )
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
