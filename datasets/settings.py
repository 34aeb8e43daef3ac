"""The settings of a dataset: defaults, and the range or the choices of each."""

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from yacs.config import CfgNode

from core.errors import InputError, short

from .arrays import MAX_GB
from .dicom import window_of

PARTS = ("all", "base", "new")
SPLIT_CHOICES = ("released", "patients")
MEANINGS = ("mask", "positive", "negative")  # of a label that is neither yes nor no
FIELDS = ("path", "label", "split", "patient", "subtype")  # what a row of a table can tell

# Joins Dassl's own cfg.DATASET.
DEFAULTS: dict[str, Any] = {
    "PATH": "",  # the dataset's folder, below ROOT or absolute; "" is the class's own
    "CSV": "",  # ImageFolder: a table path,label[,split][,patient][,subtype]
    # What the table calls its columns; "" for a column that must not be read.
    "CSV_COLUMNS": CfgNode({field: field for field in FIELDS}),
    # A column of 0 and 1 for each class, instead of one of labels; CLASS_FOLDERS names them.
    "CSV_ONE_HOT": False,
    "CSV_ROWS": [],  # only these rows: "COLUMN=VALUE", every one of which has to hold
    "CSV_REPEATS": False,  # rows that repeat an image are read once, if they agree
    "CSV_JOIN": "",  # a second table with further columns (a patient, say) of the same images
    # Which images are in which split: a .txt file with a name in a line, or a table as CSV is.
    "CSV_SPLITS": CfgNode({side: "" for side in ("train", "val", "test")}),
    "SPLIT_FILE": "",  # JSON: {"train": [[path, label, classname], ...], "val": ..., "test": ...}
    # released: as given. patients: drawn from all images that are given, in the same proportions,
    # with patients apart.
    "SPLIT": "released",
    "SPLIT_SEED": 1,  # of a split that has to be drawn, whatever the run's SEED
    "VAL_FRACTION": 0.1,  # of each class's training images, where no validation split is given
    "TEST_FRACTION": 0.2,  # of each class's images, where no test split is given
    "PATIENTS_APART": False,  # no patient on two sides of a drawn split; an error in a given one
    # Regular expression with one group, searched in the file's name, or if it contains "/" in the
    # path below the dataset's folder.
    "PATIENT_PATTERN": "",
    "EXCLUDE": [],  # files to leave out: patterns such as "*_mask*", below the dataset's folder
    "EXCLUDE_FILE": "",  # a text file of further images to leave out: a path in a line
    "ALLOW_DUPLICATES": False,  # the same bytes on two sides of a split
    "CLASSNAMES": [],  # in the order of the labels; [] is the dataset's own
    "CLASS_FOLDERS": [],  # folder or CSV label of each class; [] is the class names
    "POSITIVE": "",  # the positive class of two, for ROC curves; "" is the dataset's own, if any
    # Of DICOM files: grey values to show, "" (the file's own), a name, or (centre, width).
    "WINDOW": "",
    "FRAME": 1,  # of a DICOM file with several; the first is 1
    "DICOM_PATIENTS": True,  # where nothing else names patients, read them from DICOM headers
    "SUBSAMPLE_CLASSES": "all",  # all, base (first half of the classes) or new (the other)
    "MULTI_LABEL": False,  # ImageFolder, MedMNIST: an image may show several of CLASSNAMES, or none
    "ABSENT": "no {}",  # MULTI_LABEL: what prompts call the absence of the finding {}
    "NOT_FINDINGS": ["No Finding"],  # MULTI_LABEL: labels of the table that are no finding
    "UNCERTAIN": "mask",  # MULTI_LABEL: what -1 is: mask (unknown), positive or negative
    "UNMENTIONED": "mask",  # MULTI_LABEL: what an empty cell of a finding is, likewise
    "SYMPTOMS": "",  # symptom file; "" is symptoms/<dataset>.json
    "NOTE": "",  # a line for the card: what a reader of the figures has to know
    "FLAG": "",  # MedMNIST: the set, such as "dermamnist"
    "SIZE": 224,  # MedMNIST: pixels a side of the images: 28, 64, 128 or 224
    "COPIES_GB": MAX_GB,  # of all uncompressed copies of large .npz files in the cache folder
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
_MEANING = (lambda word: word in MEANINGS, f"choose {', '.join(MEANINGS)}")

# Key below DATASET -> whether a value is allowed, and what to do where it is not.
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "NUM_SHOTS": (
        lambda n: _is_number(n) and (n == -1 or n >= 1),
        "give -1 for all images, or at least 1",
    ),
    "SPLIT": (lambda choice: choice in SPLIT_CHOICES, "choose released or patients"),
    "CSV_ROWS": (
        lambda rows: _is_texts(rows) and all("=" in str(row) for row in rows),
        "give a list of COLUMN=VALUE, as in ['Frontal/Lateral=Frontal']",
    ),
    "SPLIT_SEED": (lambda n: _is_number(n) and n >= 0, "give 0 or more"),
    "FRAME": (lambda n: _is_number(n) and n >= 1, "give 1 for the first frame, or more"),
    "VAL_FRACTION": _FRACTION,
    "TEST_FRACTION": _FRACTION,
    "SUBSAMPLE_CLASSES": (lambda part: part in PARTS, "choose all, base or new"),
    "SIZE": (lambda n: n in (28, 64, 128, 224), "choose 28, 64, 128 or 224"),
    "COPIES_GB": (lambda n: _is_number(n) and n >= 0, "give 0 or more"),
    "ABSENT": (
        lambda text: isinstance(text, str) and text.count("{}") == 1 and text.strip() != "{}",
        "give words around one {}, as in 'no {}'",
    ),
    "NOT_FINDINGS": _TEXTS,
    "UNCERTAIN": _MEANING,
    "UNMENTIONED": _MEANING,
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
    window_of(settings.get("WINDOW", ""))
    columns = settings.get("CSV_COLUMNS", {})
    for field in ("path",) if settings.get("CSV_ONE_HOT") else ("path", "label"):
        if columns and not str(columns[field]).strip():
            raise InputError(f"DATASET.CSV_COLUMNS.{field} is empty; every row needs a {field}")


def checked_settings(settings: Mapping[str, Any]) -> SimpleNamespace:
    """``cfg.DATASET``, checked, with the defaults of what it does not declare."""
    complete = {**DEFAULTS, **settings}
    check_settings(complete)
    return SimpleNamespace(**complete)
