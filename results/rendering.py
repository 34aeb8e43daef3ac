"""A table as data (``Table``), the numbers in its cells, and both as text, LaTeX, CSV or HTML."""

import csv
import io
import math
from dataclasses import dataclass, field
from typing import Any

# tabulate would rather read ".8111" as a number and reformat it.
TABULATE: dict[str, Any] = {"disable_numparse": True}
FORMATS = ("github", "latex", "csv")


@dataclass(frozen=True)
class Estimate:
    """A number of a table, with its deviation and interval where there are any."""

    value: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    signed: bool = False  # a difference, printed in points
    mark: str | None = None  # printed behind it; a note says what it means
    tiny: bool = False  # may be far below 1: printed with three significant digits

    def __str__(self) -> str:
        if self.tiny:
            spread = "" if self.deviation is None else f" ({self.deviation:.2g})"
            return f"{self.value:.3g}{spread}"
        if self.signed:
            text = f"{100 * self.value:+.2f}"
            bounds = f" [{_points(self.low)}, {_points(self.high)}]"
            deviation = f" ({100 * (self.deviation or 0):.2f})"
        else:
            text, bounds = short(self.value, 4), f" [{short(self.low, 3)}, {short(self.high, 3)}]"
            deviation = f" ({short(self.deviation, 3)})"
        if self.deviation is not None:
            text += deviation
        return text + (bounds if self.low is not None else "") + (self.mark or "")


class PValue(float):
    """A p value: .0123, <.0001, or "-" where there is none."""

    def __str__(self) -> str:
        return "<.0001" if self < 1e-4 else short(self, 4)


def short(value: float | None, digits: int) -> str:
    """.8111 as the paper prints it; "-" where there is no number."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{digits}f}"


def _points(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:+.2f}"


@dataclass
class Table:
    """Headers, rows of str, number, Estimate or None, and notes below the table."""

    title: str
    headers: list[str]
    rows: list[list[Any]]
    notes: list[str] = field(default_factory=list)
    text_columns: int = 1  # at the left; the others hold numbers

    def text_rows(self) -> list[list[str]]:
        return [[_text(cell) for cell in row] for row in self.rows]


def _text(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, PValue):
        return str(cell)
    if isinstance(cell, float):
        return f"{cell:.3g}" if abs(cell) < 100 else f"{cell:,.0f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def render(table: Table, form: str = "github") -> str:
    """A table as text: ``github``, ``latex`` (booktabs), ``csv`` (full precision) or ``html``."""
    if form == "csv":
        return _csv(table)
    numbers = len(table.headers) - table.text_columns
    align = ["left"] * table.text_columns + ["right"] * numbers
    tablefmt = "latex_booktabs" if form == "latex" else form
    import tabulate  # here: not every command prints a table

    body = tabulate.tabulate(
        table.text_rows(), table.headers, tablefmt=tablefmt, colalign=align, **TABULATE
    )
    if form == "latex":
        head = f"% {table.title} (needs \\usepackage{{booktabs}})"
        return "\n".join([head, body, *(f"% {note}" for note in table.notes)])
    if form == "html":
        return body
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"## {table.title}", "", body, *([""] if notes else []), *notes])


def _csv(table: Table) -> str:
    """Estimates take a column for each of their parts, so that a program can read them."""
    parts = ("deviation", "low", "high", "mark")
    used = [
        [p for p in parts if any(getattr(row[i], p, None) is not None for row in table.rows)]
        for i in range(len(table.headers))
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    headers = ["table"]
    for header, extra in zip(table.headers, used, strict=True):
        headers += [header, *(f"{header} {part}" for part in extra)]
    writer.writerow(headers)
    for row in table.rows:
        line: list[Any] = [table.title]
        for cell, extra in zip(row, used, strict=True):
            line.append(cell.value if isinstance(cell, Estimate) else cell)
            line += [getattr(cell, part, None) for part in extra]
        writer.writerow("" if cell is None else cell for cell in line)
    return out.getvalue().rstrip("\n")
