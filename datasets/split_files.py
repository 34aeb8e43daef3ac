"""Split files: which image is in which split, in the JSON format that CoOp-family code shares."""

import json
from collections.abc import Sequence
from pathlib import Path

from core.errors import InputError, short
from core.files import atomic_write, read_json

from .splits import SPLITS, Split, rows_fingerprint, split_fingerprint

SplitRows = dict[str, list[tuple[str, int, str]]]


def read_split_rows(path: str | Path) -> SplitRows:
    """{"train": [(path, label, class name), ...], ...} of a split file, its form checked.

    Raises:
        InputError: the file cannot be read, does not have this form, or was changed after it was
            written with a fingerprint.
    """
    data = read_json(path)
    if not isinstance(data, dict) or "train" not in data or "test" not in data:
        raise InputError(f'{path}: a split file is an object with "train", "val" and "test"')
    rows: SplitRows = {}
    for side in SPLITS:
        entries = data.get(side) or []
        if not isinstance(entries, list):
            raise InputError(f"{path}: {side!r} is {short(entries)}; it should be a list")
        rows[side] = [_row(path, side, number, row) for number, row in enumerate(entries, start=1)]
    if "fingerprint" in data:
        found = rows_fingerprint(
            {side: [(name, classname) for name, _, classname in rows[side]] for side in SPLITS}
        )
        if found != data["fingerprint"]:
            raise InputError(
                f"{path}: was changed after it was written; remove its line 'fingerprint' if the "
                "change is meant"
            )
    return rows


def _row(path: str | Path, side: str, number: int, row: object) -> tuple[str, int, str]:
    # type(), because True is an int too.
    if not isinstance(row, list) or [type(value) for value in row] != [str, int, str]:
        raise InputError(
            f"{path}: entry {number} of {side!r} is {short(row)}; it should be "
            "[path, label, class name]"
        )
    relative, label, classname = row
    if not relative.strip() or not classname.strip() or label < 0:
        raise InputError(
            f"{path}: entry {number} of {side!r} is {short(row)}; give a path, a label of 0 or "
            "more and a class name"
        )
    return relative, label, classname


def names_by_label(path: str | Path, rows: SplitRows) -> list[str]:
    """The class names of a split file, in the order of its labels.

    Raises:
        InputError: a class has two labels, or a label two classes.
    """
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    for side in SPLITS:
        for relative, label, name in rows[side]:
            if names.setdefault(label, name) != name:
                clash = f"names {short(names[label])} and {short(name)}"
                raise InputError(
                    f"{path}: {short(relative)}: the label {label} {clash}; correct it"
                )
            if labels.setdefault(name, label) != label:
                clash = f"the labels {labels[name]} and {label}"
                raise InputError(
                    f"{path}: {short(relative)}: {short(name)} has {clash}; correct it"
                )
    return [names[label] for label in sorted(names)]


def write_split(path: str | Path, split: Split, classnames: Sequence[str]) -> None:
    """Write a split as readable JSON, one image a line, with its fingerprint."""
    label = {name: index for index, name in enumerate(classnames)}
    lines = [f'"fingerprint": {json.dumps(split_fingerprint(split))}']
    for side in SPLITS:
        rows = ",\n    ".join(
            json.dumps([picture.id, label[picture.classname], picture.classname])
            for picture in split[side]
        )
        lines.append(f'"{side}": [\n    {rows}\n  ]')
    with atomic_write(path) as file:
        file.write("{\n  " + ",\n  ".join(lines) + "\n}\n")
