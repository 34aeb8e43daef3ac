"""The settings of a dataset: defaults, and the range or the choices of each."""

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from yacs.config import CfgNode

from core.errors import InputError, short

PARTS = ("all", "base", "new")
FIELDS = ("path", "label", "split", "patient", "subtype")  # what a row of a table can tell

# Joins Dassl's own cfg.DATASET.
DEFAULTS: dict[str, Any] = {
    "PATH": "",  # the dataset's folder, below ROOT or absolute; "" is the class's own
    "CSV": "",  # ImageFolder: a table path,label[,split][,patient][,subtype]
    # What the table calls its columns; "" for a column that must not be read.
    "CSV_COLUMNS": CfgNode({field: field for field in FIELDS}),
    "SPLIT_FILE": "",  # JSON: {"train": [[path, label, classname], ...], "val": ..., "test": ...}
    "SPLIT_SEED": 1,  # of a split that has to be drawn, whatever the run's SEED
    "VAL_FRACTION": 0.1,  # of each class's training images, where no validation split is given
    "TEST_FRACTION": 0.2,  # of each class's images, where no test split is given
    "PATIENTS_APART": False,  # no patient on two sides of a drawn split; an error in a given one
    "PATIENT_PATTERN": "",  # regular expression with one group, searched in the file's name
    "EXCLUDE": [],  # files to leave out: patterns such as "*_mask*", below the dataset's folder
    "EXCLUDE_FILE": "",  # a text file of further images to leave out: a path in a line
    "ALLOW_DUPLICATES": False,  # the same bytes on two sides of a split
    "CLASSNAMES": [],  # in the order of the labels; [] is the dataset's own
    "CLASS_FOLDERS": [],  # folder or CSV label of each class; [] is the class names
    "POSITIVE": "",  # the positive class of two, for ROC curves; "" is the dataset's own, if any
    "SUBSAMPLE_CLASSES": "all",  # all, base (first half of the classes) or new (the other)
    "SYMPTOMS": "",  # symptom file; "" is symptoms/<dataset>.json
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    # YAML reads the labels [0, 1] as numbers.
    return isinstance(value, list | tuple) and all(
        isinstance(item, str) or _is_number(item) for item in value
    )


def _is_pattern(value: Any) -> bool:
    try:
        return not value or re.compile(value).groups == 1
    except (re.error, TypeError, RecursionError, OverflowError):
        return False


_FRACTION = (lambda x: _is_number(x) and 0 < x < 1, "give more than 0 and less than 1")
_TEXTS = (_is_texts, "give a list of names")

# Key below DATASET -> whether a value is allowed, and what to do where it is not.
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "NUM_SHOTS": (
        lambda n: _is_number(n) and (n == -1 or n >= 1),
        "give -1 for all images, or at least 1",
    ),
    "SPLIT_SEED": (lambda n: _is_number(n) and n >= 0, "give 0 or more"),
    "VAL_FRACTION": _FRACTION,
    "TEST_FRACTION": _FRACTION,
    "SUBSAMPLE_CLASSES": (lambda part: part in PARTS, "choose all, base or new"),
    "CLASSNAMES": _TEXTS,
    "CLASS_FOLDERS": _TEXTS,
    "EXCLUDE": (_is_texts, "give a list of patterns, as in ['*_mask*']"),
    "PATIENT_PATTERN": (
        _is_pattern,
        r"give a regular expression with one group, the patient, as in '^(\d+)_'",
    ),
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise InputError for the first of ``cfg.DATASET``'s settings that is out of its range."""
    for key, (is_allowed, advice) in CHECKS.items():
        if key in settings and not is_allowed(settings[key]):
            raise InputError(f"DATASET.{key} is {short(settings[key])}; {advice}")
    columns = settings.get("CSV_COLUMNS", {})
    for field in ("path", "label"):
        if columns and not str(columns[field]).strip():
            raise InputError(f"DATASET.CSV_COLUMNS.{field} is empty; every row needs a {field}")


def checked_settings(settings: Mapping[str, Any]) -> SimpleNamespace:
    """``cfg.DATASET``, checked, with the defaults of what it does not declare."""
    complete = {**DEFAULTS, **settings}
    check_settings(complete)
    return SimpleNamespace(**complete)
