"""A user's own pictures: a folder for each class, or a table."""

import csv

from dassl.data.datasets import DATASET_REGISTRY

from core.errors import InputError

from .base import MedicalDataset
from .pictures import Finder, find_pictures, is_hidden
from .splits import SPLIT_NAMES, SPLITS, read_split_rows


@DATASET_REGISTRY.register()
class ImageFolder(MedicalDataset):
    """Pictures described by a YAML file alone; see ``configs/datasets/example.yaml``.

    Read from <class>/..., {train,val,test}/<class>/..., a table ``DATASET.CSV`` with the columns
    path,label[,split][,patient][,subtype], or a split file. What is not given is drawn by seed,
    with every class on each side in proportion, and patients apart where they are known.
    """

    source = "put your pictures in folders train/<class>/"
    patients_known_apart = True

    def prepare(self):
        if not self.settings.PATH:
            raise InputError("DATASET.PATH is empty; set it to the folder of your pictures")

    def find_classnames(self):
        """The YAML's names, else those of the table, the split file or the folders, sorted."""
        if self.settings.CLASSNAMES or self.settings.CLASS_FOLDERS:
            return list(self.settings.CLASSNAMES or self.settings.CLASS_FOLDERS)
        if self.settings.SPLIT_FILE:
            rows = read_split_rows(self.find_file(self.settings.SPLIT_FILE, "DATASET.SPLIT_FILE"))
            # In the order of the file's own labels.
            numbered = {(label, name) for side in SPLITS for _, label, name in rows[side]}
            return list(dict.fromkeys(name for _, name in sorted(numbered)))
        if self.settings.CSV:
            return sorted({row["label"] for _, row in self._table()[1]})
        folder = self.split_folders().get("train", self.dataset_dir)
        return [
            entry.name
            for entry in sorted(folder.iterdir())
            if entry.is_dir() and not is_hidden(entry.name) and find_pictures(entry)[0]
        ]

    def read(self):
        if self.settings.CSV:
            return self._read_table()
        if self.split_folders():
            return self.read_split_folders()
        return {"train": self.read_class_folders(self.dataset_dir)}

    def _read_table(self):
        path, rows = self._table()
        self.given_by = str(path)
        finder = Finder()
        given = {side: [] for side in SPLITS}
        missing, seen = [], {}
        for number, row in rows:
            where = f"{path}, line {number}"
            label = self.label_of(row["label"])
            if label is None:
                raise InputError(
                    f"{where}: the label {row['label']!r} is none of "
                    f"{', '.join(self.all_classnames)}; name it in DATASET.CLASSNAMES or, where it "
                    "is called otherwise, DATASET.CLASS_FOLDERS"
                )
            side = SPLIT_NAMES.get(row.get("split", "train").lower())
            if side is None:
                raise InputError(f"{where}: the split {row['split']!r} is none of train, val, test")
            # Paths are the dataset's; a table kept elsewhere may also have them beside itself.
            found = finder.find(self.dataset_dir, row["path"]) or finder.find(
                path.parent, row["path"]
            )
            if found is None:
                missing.append((number, row["path"]))
                continue
            if seen.setdefault(found, number) != number:
                raise InputError(
                    f"{where}: {row['path']} is in line {seen[found]} already; keep one"
                )
            given[side].append(
                self.picture(
                    found,
                    label,
                    patient=row.get("patient") or None,
                    subtype=row.get("subtype") or None,
                )
            )
        if missing:
            number, name = missing[0]
            more = f" (and {len(missing) - 1:,} more missing files)" if missing[1:] else ""
            raise InputError(
                f"{path}, line {number}: {name} is not below {self.dataset_dir}{more}; "
                "restore it or take the line out"
            )
        return given

    def _table(self):
        """The table's path and its (line number, row) pairs, with stripped cells."""
        path = self.find_file(self.settings.CSV, "DATASET.CSV")
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                reader.fieldnames = [
                    (name or "").strip().lower() for name in reader.fieldnames or []
                ]
                rows = [
                    (reader.line_num, {key: (row[key] or "").strip() for key in reader.fieldnames})
                    for row in reader
                ]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: cannot be read as a UTF-8 table ({error})") from None
        columns = ", ".join(reader.fieldnames) or "none"
        for column in ("path", "label"):
            if column not in reader.fieldnames:
                raise InputError(
                    f"{path}: has no column {column!r}, only {columns}; its"
                    " first line should be path,label[,split][,patient]"
                )
            for number, row in rows:
                if not row[column]:
                    raise InputError(f"{path}, line {number}: its {column} is empty; fill it in")
        if not rows:
            raise InputError(f"{path}: has no pictures; write one in a line")
        return path, rows
