"""Images that may show several findings each: what such a dataset is, and those in a table."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dassl.data.datasets import DATASET_REGISTRY

from core.errors import InputError, short, some
from core.names import name_key
from core.tables import Table

from .base import MedicalDataset
from .classes import ClassNames
from .image_folder import ImageFolder
from .image_tables import ONE_HOT, column_of
from .pictures import Picture
from .splits import SPLITS, Completed, Split, check_sides, complete

Label = tuple[float, ...]  # 1, 0 or UNKNOWN of each finding
UNKNOWN = math.nan
_MEANINGS = {"mask": UNKNOWN, "positive": 1.0, "negative": 0.0}
_ANY = "any findings"  # the one class that splits are drawn and checked by
_NOTHING = "-"  # the label of an image that shows none of the findings
_UNKNOWN_MARK = "?"
_SEPARATOR = re.compile(r"[|;]")  # between the labels of one image
# DATASET.NAME -> the dataset that reads the same with several findings an image.
READERS = {"ImageFolder": "MultiLabelFolder", "MedMNIST": "MultiLabelMedMNIST"}


def reader_of(name: str, multi_label: bool) -> str:
    """The registered dataset for DATASET.NAME and DATASET.MULTI_LABEL.

    Raises:
        InputError: the dataset has one class an image.
    """
    if not multi_label or name in READERS.values():
        return name
    if name not in READERS:
        raise InputError(
            f"DATASET.MULTI_LABEL is True, but DATASET.NAME {name} has one class an image; "
            f"the datasets with several are {', '.join(READERS)}"
        )
    return READERS[name]


def check_one_class(dataset: Any, who: str) -> None:
    """Raise InputError for a dataset with several findings an image; ``who`` cannot read one."""
    if dataset.findings:
        raise InputError(
            f"{who} needs one class an image; DATASET.MULTI_LABEL gives an image several findings"
        )


class SeveralFindings(MedicalDataset):
    """A dataset whose images may show several findings each; docs/multi_label.md.

    The label of an image is a tuple of 1, 0 or ``UNKNOWN`` for each finding. ``classnames`` are the
    findings and then the absence of each: a model has a pair of classes for a finding.
    """

    instead = ""  # of a split file: where a split may come from

    def prepare(self) -> None:
        super().prepare()
        settings = self.settings
        if not settings.MULTI_LABEL:
            raise InputError(f"DATASET.NAME {type(self).__name__}: set DATASET.MULTI_LABEL True")
        if not settings.CLASSNAMES:
            raise InputError("DATASET.CLASSNAMES is empty; DATASET.MULTI_LABEL needs the findings")
        for key, changed, why in (
            ("NUM_SHOTS", settings.NUM_SHOTS > 0, "shots are counted for one class an image"),
            ("SUBSAMPLE_CLASSES", settings.SUBSAMPLE_CLASSES != "all", "halves are of classes"),
            ("SPLIT_FILE", settings.SPLIT_FILE, f"it has one class an image{self.instead}"),
            ("POSITIVE", settings.POSITIVE, "each finding is the positive class of its own pair"),
        ):
            if changed:
                raise InputError(
                    f"DATASET.{key} does not apply with DATASET.MULTI_LABEL ({why}); leave it out"
                )

    def _class_names(self) -> ClassNames:
        classes = ClassNames(self.settings.CLASSNAMES, self.settings.CLASS_FOLDERS)
        self.findings = classes.names
        absent = [self.settings.ABSENT.replace("{}", name) for name in classes.names]
        self.pairs = ClassNames([*classes.names, *absent]).names  # an error where two are alike
        return classes

    # Splits and counts

    def completed(
        self, given: Split, settings: Any, apart: bool, together: Sequence[list[Picture]]
    ) -> Completed:
        """Drawn at random by patient or image: an image has no single class to draw a share of."""
        every = {p.id: p for pictures in given.values() for p in pictures}
        done = complete(_as_one_class(given), settings, apart, self.split_key, together)
        split = {side: [every[p.id] for p in done.split[side]] for side in SPLITS}
        notes = check_sides(done.split, [_ANY], self.settings.PATIENTS_APART)
        return replace(done, split=split, notes=done.notes + notes + self._label_notes(split))

    def _label_notes(self, split: Split) -> list[str]:
        """What of the findings is unknown or has one value, for the card."""
        notes = []
        unknown = Counter(
            name
            for pictures in split.values()
            for picture in pictures
            for name, value in zip(self.findings, label_of(picture), strict=True)
            if math.isnan(value)
        )
        if unknown:
            counts = [f"{name} {n:,}" for name, n in unknown.items()]
            notes.append(f"unknown, left out of loss and figures: {some(counts, 20)}")
        for side in SPLITS:
            values = zip(*map(label_of, split[side]), strict=True)
            one_value = [
                name
                for name, of_images in zip(self.findings, values, strict=False)
                if len({value for value in of_images if not math.isnan(value)}) < 2
            ]
            if one_value:
                notes.append(f"{side} has no two values of {some(one_value, 20)}: no figures of it")
        return notes

    def counts_of(self, pictures: Sequence[Picture]) -> Counter[str]:
        """Finding -> images that show it."""
        return Counter(
            {
                name: sum(label_of(picture)[c] == 1 for picture in pictures)
                for c, name in enumerate(self.findings)
            }
        )

    def _record_split(self) -> None:
        """A split file has one class an image; the seed draws the same split again."""

    # What Dassl asks of a dataset

    def _set_lists(self, used: Split) -> None:
        # Dassl counts classes by an integer label.
        super()._set_lists(_as_one_class(used))
        self._train_x, self._val, self._test = (list(used[side]) for side in SPLITS)

    @property
    def classnames(self) -> list[str]:
        return self.pairs

    @property
    def lab2cname(self) -> dict[int, str]:
        return dict(enumerate(self.pairs))

    @property
    def num_classes(self) -> int:
        return len(self.pairs)


@DATASET_REGISTRY.register()
class MultiLabelFolder(SeveralFindings, ImageFolder):
    """What ``DATASET.NAME ImageFolder`` is with ``DATASET.MULTI_LABEL True``.

    Labels are read from the label column ("Edema|Effusion") or, with DATASET.CSV_ONE_HOT, from a
    column for each finding (1, 0, -1 for uncertain, or empty).
    """

    instead = "; use a column of splits or DATASET.CSV_SPLITS"

    def prepare(self) -> None:
        super().prepare()
        if not self.settings.CSV:
            raise InputError(
                "DATASET.MULTI_LABEL is True, but DATASET.CSV is empty; several labels of an image "
                "are read from a table"
            )

    # The table

    def _with_labels(self, table: Table) -> Table:
        """``table`` with a column of joined labels, from its columns of 1, 0, -1 or nothing."""
        names = self._one_hot_columns()
        columns = {name: column_of(table, name, "DATASET.CLASS_FOLDERS") for name in names}
        rows = []
        for number, row in table.rows:
            where = f"{table.path}, line {number}, column "
            values = [self._value(row[column], where + column) for column in columns.values()]
            rows.append((number, row | {ONE_HOT: joined(list(columns), values) or _NOTHING}))
        return Table(table.path, [*table.columns, ONE_HOT], rows)

    def _value(self, text: str, where: str) -> float:
        if not text:
            return _MEANINGS[self.settings.UNMENTIONED]
        try:
            value = float(text)
        except ValueError:
            value = UNKNOWN
        if value == -1:
            return _MEANINGS[self.settings.UNCERTAIN]
        if value not in (0, 1):
            raise InputError(
                f"{where}: {short(text)} is not a label; give 1, 0, -1 for uncertain, or nothing"
            )
        return value

    def _check_one_label(self, label: str, where: str) -> None:
        """Several labels are what this is for."""

    def _label(self, text: str, where: str) -> Label:
        """Joined labels, as ``joined`` writes them, as a tuple."""
        values = [0.0] * len(self.findings)
        none = {name_key(str(name)) for name in (*self.settings.NOT_FINDINGS, _NOTHING)}
        for word in filter(None, map(str.strip, _SEPARATOR.split(text))):
            name = word.removesuffix(_UNKNOWN_MARK)
            label = self.label_of(name)
            if label is not None:
                values[label] = 1.0 if name == word else UNKNOWN
            elif name_key(name) not in none:
                raise InputError(
                    f"{where}: the label {short(name)} is not one of {self.classes}; name it in "
                    "DATASET.CLASSNAMES, where it is called otherwise in DATASET.CLASS_FOLDERS, or "
                    "in DATASET.NOT_FINDINGS if it is none"
                )
        return tuple(values)

    def picture(
        self, path: str | Path, label: Any, patient: str | None = None, subtype: str | None = None
    ) -> Picture:
        """A Picture with the labels of its findings."""
        known = super().picture(path, 0, patient, subtype)
        text = joined(self.findings, label)
        return Picture(path, label, text, known.id, known.patient, known.subtype)


def _as_one_class(split: Split) -> Split:
    return {side: [p.relabelled(0) for p in pictures] for side, pictures in split.items()}


def joined(names: Sequence[str], values: Sequence[float]) -> str:
    """Labels as a text, which a split's fingerprint knows an image by: "edema|effusion?".

    What is unknown has a question mark; what is not there is left out.
    """
    marks = {1.0: "", 0.0: None}
    said = [
        (name, marks.get(value, _UNKNOWN_MARK)) for name, value in zip(names, values, strict=True)
    ]
    return "|".join(f"{name}{mark}" for name, mark in said if mark is not None)


def label_of(picture: Picture) -> Label:
    """The label of an image that may show several findings."""
    label: Any = picture.label
    return label
