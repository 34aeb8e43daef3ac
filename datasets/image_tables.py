"""Tables of images as archives release them, brought to one row an image and one column a fact."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import InputError, short
from core.tables import Table

ONE_HOT = "label (one-hot)"  # the column that ``with_one_hot_labels`` adds
_IMAGE = re.compile(r"\.[A-Za-z]{3,4}$")


def keep_rows(table: Table, wanted: Sequence[str]) -> Table:
    """The rows in which each ``COLUMN=VALUE`` holds, letter case aside.

    Raises:
        InputError: the table has no such column, or no row is left.
    """
    rows = table.rows
    for text in map(str, wanted):
        name, _, value = text.partition("=")
        column = column_of(table, name, "DATASET.CSV_ROWS")
        value = value.strip().casefold()
        rows = [(number, row) for number, row in rows if row[column].casefold() == value]
        if table.rows and not rows:
            raise InputError(f"{table.path}: no row has {short(text)}; correct DATASET.CSV_ROWS")
    return replace(table, rows=rows)


def join(table: Table, other: Table, key: str) -> Table:
    """``table`` with the columns that only ``other`` has, of the row with the same ``key``.

    Cells are empty where ``other`` has no such row. Keys are compared without an image's ending.

    Raises:
        InputError: ``other`` has no column ``key``, or has two rows of one image that differ.
    """
    own, theirs = column_of(table, key, "DATASET.CSV_COLUMNS.path"), other.column(key)
    if theirs is None:
        raise InputError(
            f"{other.path}: has no column {short(key)} to find the images of {table.path} by; "
            "correct DATASET.CSV_JOIN"
        )
    added = [name for name in other.columns if name and table.column(name) is None]
    found: dict[str, dict[str, str]] = {}
    for number, row in other.rows:
        cells = {name: row[name] for name in added}
        if found.setdefault(image_key(row[theirs]), cells) != cells:
            raise InputError(
                f"{other.path}, line {number}: {short(row[theirs])} is there twice, with different "
                "cells; keep one"
            )
    empty = dict.fromkeys(added, "")
    rows = [(number, row | found.get(image_key(row[own]), empty)) for number, row in table.rows]
    return Table(table.path, [*table.columns, *added], rows)


def with_one_hot_labels(table: Table, names: Sequence[str]) -> Table:
    """``table`` with a column ``ONE_HOT`` of labels, from a column of 0 and 1 for each class.

    Raises:
        InputError: a column is missing, or a row does not have exactly one 1 among them.
    """
    columns = {name: column_of(table, name, "DATASET.CLASS_FOLDERS") for name in map(str, names)}
    rows = []
    for number, row in table.rows:
        given = [name for name, column in columns.items() if _is_one(table, number, row, column)]
        if len(given) != 1:
            what = f"is 1 for {' and '.join(given)}" if given else "is 1 for none of the classes"
            raise InputError(
                f"{table.path}, line {number}: {what}; a row has one class ({', '.join(columns)}): "
                "name the missing class in DATASET.CLASS_FOLDERS or remove the row"
            )
        rows.append((number, row | {ONE_HOT: given[0]}))
    return Table(table.path, [*table.columns, ONE_HOT], rows)


def _is_one(table: Table, number: int, row: dict[str, str], column: str) -> bool:
    try:
        value = float(row[column] or 0)
    except ValueError:
        value = -1.0
    if value not in (0.0, 1.0):
        raise InputError(
            f"{table.path}, line {number}, column {column}: {short(row[column])} is neither 0 nor 1"
        )
    return value == 1.0


def column_of(table: Table, name: str, setting: str) -> str:
    """The column called ``name`` in any case of letters; ``setting`` says where it is named.

    Raises:
        InputError: there is none.
    """
    column = table.column(name)
    if column is None:
        raise InputError(
            f"{table.path}: has no column {short(name)}, only "
            f"{', '.join(filter(None, table.columns)) or 'none'}; correct {setting}"
        )
    return column


# Splits that the release gives as files


@dataclass(frozen=True)
class SplitLists:
    """Which image is in which split, by lists of names.

    ``side`` is the split of an image, None where lists leave it out: images that are in no list are
    training images only if there is no list of training images.
    """

    sides: dict[str, str]
    has_train: bool

    def side(self, name: str) -> str | None:
        listed = self.sides.get(image_key(name))
        return listed or (None if self.has_train else "train")


def read_lists(paths: dict[str, Path]) -> SplitLists:
    """Split -> its list, a text file with the name of an image in each line.

    Raises:
        InputError: a file cannot be read, or an image is in two lists.
    """
    sides: dict[str, str] = {}
    for side, path in paths.items():
        try:
            names = path.read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as a list of names ({error})") from None
        for number, name in enumerate(map(str.strip, names), start=1):
            if name and sides.setdefault(image_key(name), side) != side:
                raise InputError(
                    f"{path}, line {number}: {short(name)} is in {paths[sides[image_key(name)]]} "
                    "too; keep one"
                )
    return SplitLists(sides, "train" in paths)


def is_list(path: str) -> bool:
    return path.lower().endswith(".txt")


def image_key(name: str) -> str:
    """The same key for two spellings of one image: its ending and the letter case do not matter."""
    return _IMAGE.sub("", name.strip().replace("\\", "/")).casefold()
