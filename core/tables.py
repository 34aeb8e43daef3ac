"""CSV tables with a header, read strictly: a damaged one is an error that names line and column."""

import csv
from dataclasses import dataclass
from pathlib import Path

from core.errors import InputError, short


@dataclass(frozen=True)
class Table:
    """A table read from ``path``.

    ``rows`` are pairs of a line number and {column: cell without surrounding spaces}. Columns are
    spelled as in the file.
    """

    path: Path
    columns: list[str]
    rows: list[tuple[int, dict[str, str]]]

    def column(self, name: str) -> str | None:
        """The column called ``name`` in any case of letters, as the file spells it."""
        wanted = name.strip().casefold()
        return next((column for column in self.columns if column.casefold() == wanted), None)


def read_table(path: str | Path, errors: str = "strict") -> Table:
    """Read a table separated by commas, or by tabs or semicolons where its header has no comma.

    Args:
        path: a UTF-8 file, with or without a byte-order mark.
        errors: what to do with bytes that are not UTF-8, as for ``open``.

    Raises:
        InputError: the file cannot be read, has a column twice, or has a row with more or fewer
            cells than the header.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", errors=errors, newline="") as file:
            header = file.readline()
            file.seek(0)
            delimiter = next((mark for mark in ",\t;" if mark in header), ",")
            reader = csv.reader(file, delimiter=delimiter)
            lines = [(reader.line_num, [*map(str.strip, row)]) for row in reader]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 table ({error})") from None
    lines = [(number, row) for number, row in lines if any(row)]
    columns = _columns(path, *lines[0]) if lines else []
    return Table(path, columns, [_row(path, number, row, columns) for number, row in lines[1:]])


def _columns(path: Path, number: int, cells: list[str]) -> list[str]:
    seen: set[str] = set()
    for name in filter(None, cells):
        if name.casefold() in seen:
            raise InputError(
                f"{path}, line {number}: the column {short(name)} is there twice; "
                "rename or remove one"
            )
        seen.add(name.casefold())
    return _without_empty_end(cells, 0)


def _row(
    path: Path, number: int, cells: list[str], columns: list[str]
) -> tuple[int, dict[str, str]]:
    if len(cells) > len(columns):
        cells = _without_empty_end(cells, len(columns))
    if len(cells) > len(columns):
        raise InputError(
            f"{path}, line {number}: has {len(cells)} cells, the header has {len(columns)} columns "
            f"(the first cell without a column is {short(cells[len(columns)])}); "
            "put quotes around a cell that holds the separator"
        )
    if len(cells) < len(columns):
        raise InputError(
            f"{path}, line {number}: has {len(cells)} cells, the header has {len(columns)} columns "
            f"(the column {short(columns[len(cells)])} is missing); complete the line"
        )
    return number, {name: cell for name, cell in zip(columns, cells, strict=True) if name}


def _without_empty_end(cells: list[str], least: int) -> list[str]:
    """Without the empty cells that a separator at a line's end makes."""
    end = len(cells)
    while end > least and not cells[end - 1]:
        end -= 1
    return cells[:end]
