"""A user's own images: a folder for each class, or a table."""

import re
from functools import cached_property
from pathlib import Path

from dassl.data.datasets import DATASET_REGISTRY

from core.errors import InputError, and_more, short
from core.names import name_key
from core.tables import read_table

from .base import MedicalDataset
from .finding import subfolders
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

    source = "put your images in folders train/<class>/"
    patients_known_apart = True

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
    def _table(self) -> list[tuple[int, Row]]:
        """The table's (line number, row) pairs, without rows that are excluded."""
        table = read_table(self._csv)
        columns = {}
        for field in FIELDS:
            name = str(self.settings.CSV_COLUMNS[field])
            column = table.column(name) if name else None
            if column is not None:
                columns[field] = column
            elif field in ("path", "label") or name not in ("", field):
                raise InputError(
                    f"{self._csv}: has no column {short(name)}, only "
                    f"{', '.join(filter(None, table.columns)) or 'none'}; set "
                    f"DATASET.CSV_COLUMNS.{field} to the table's own name for it"
                )
        rows = [
            (number, {field: row[column] for field, column in columns.items()})
            for number, row in table.rows
        ]
        for number, row in rows:
            for field in ("path", "label"):
                if not row[field]:
                    raise InputError(
                        f"{self._csv}, line {number}: its {columns[field]} is empty; fill it in"
                    )
            where = f"{self._csv}, line {number}, column {columns['label']}"
            self._check_one_label(row["label"], where)
        if self.settings.EXCLUDE:
            rows = [
                (number, row)
                for number, row in rows
                if not self.is_excluded(self.dataset_dir / row["path"].replace("\\", "/"))
            ]
        if not rows:
            raise InputError(f"{self._csv}: has no images; write one in a line")
        return rows

    def _check_one_label(self, label: str, where: str) -> None:
        if not _SEVERAL.search(label):
            return
        named = [*self.settings.CLASSNAMES, *self.settings.CLASS_FOLDERS]
        if name_key(label) not in {name_key(str(n)) for n in named}:
            raise InputError(
                f"{where}: {short(label)} is several labels of one image, and an image has one "
                "class here; remove such lines, or name it in DATASET.CLASSNAMES if it is one class"
            )

    def _read_table(self) -> Split:
        self.given_by = str(self._csv)
        finder = Finder()
        given: Split = {side: [] for side in SPLITS}
        missing: list[tuple[int, str]] = []
        seen: dict[str, int] = {}
        for number, row in self._table:
            where = f"{self._csv}, line {number}"
            label, side = self._label_and_side(row, where)
            found = self._find(finder, row["path"], where)
            if found is None:
                missing.append((number, row["path"]))
                continue
            if seen.setdefault(found, number) != number:
                raise InputError(
                    f"{where}: {row['path']} is in line {seen[found]} already; keep one"
                )
            patient, subtype = row.get("patient") or None, row.get("subtype") or None
            given[side].append(self.picture(found, label, patient, subtype))
        if missing:
            number, name = missing[0]
            raise InputError(
                f"{self._csv}, line {number}: {short(name)} is not below {self.dataset_dir}"
                f"{and_more(missing, 'missing files')}; restore it or remove the line"
            )
        del self._table  # of 100,000 images, 60 MB
        return given

    def _label_and_side(self, row: Row, where: str) -> tuple[int, str]:
        label = self.label_of(row["label"])
        if label is None:
            raise InputError(
                f"{where}: the label {short(row['label'])} is not one of {self.classes}; name it "
                "in DATASET.CLASSNAMES or, where it is called otherwise, DATASET.CLASS_FOLDERS"
            )
        side = SPLIT_NAMES.get(row.get("split", "train").lower())
        if side is None:
            raise InputError(
                f"{where}: the split {short(row['split'])} is not one of train, val, test"
            )
        return label, side

    def _find(self, finder: Finder, name: str, where: str) -> str | None:
        # Paths are the dataset's; a table kept elsewhere may also have them beside itself.
        try:
            return finder.picture_path_of(self.dataset_dir, name) or finder.path_of(
                self._csv.parent, name
            )
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
