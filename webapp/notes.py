"""A user's own label and remark for images, in a local CSV, and their agreement with a run."""

import csv
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from core.errors import InputError, shortened
from core.files import atomic_write
from core.tables import read_table

COLUMNS = ("time", "reader", "image", "name", "label", "remark")
LONGEST = {"reader": 60, "remark": 2000}
# A spreadsheet would run such a cell; one apostrophe before it is taken away when it is read.
_FORMULA = re.compile(r"'?[=+\-@]")


class Notes:
    """The notes in a CSV file: one row a note; the last of a reader on an image counts.

    Args:
        path: the file, which need not be there yet.

    Raises:
        InputError: the file is there and holds no notes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows()

    def rows(self) -> list[dict[str, str]]:
        """All notes, the oldest first."""
        _, cells = self._cells()
        return [{name: _unquoted(row[name]) for name in COLUMNS} for row in cells]

    def _cells(self) -> tuple[list[str], list[dict[str, str]]]:
        """The columns of the file, a user's own among them, and its rows as they are."""
        if not self.path.exists():
            return list(COLUMNS), []
        table = read_table(self.path)
        if missing := [name for name in COLUMNS if name not in table.columns]:
            raise InputError(
                f"{self.path}: holds no notes of this app (it lacks the column {missing[0]!r}); "
                "name another file"
            )
        return list(filter(None, table.columns)), [row for _, row in table.rows]

    def add(self, image: str, name: str, label: str, remark: Any, reader: Any) -> dict[str, str]:
        """Append a note and return it.

        Args:
            image: what identifies the image in any session. label: a class's name, or "".

        Raises:
            InputError: it is not a note, or the file cannot be written.
        """
        note = {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "reader": _text("reader", reader),
            "image": image,
            "name": name,
            "label": label,
            "remark": _text("remark", remark),
        }
        if not note["label"] and not note["remark"]:
            raise InputError("a note needs a label or a remark")
        try:
            self._append({name: _quoted(text) for name, text in note.items()})
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); the note is not saved"
            ) from None
        return note

    def _append(self, row: Mapping[str, str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Another app.py may write the same file.
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            columns, cells = self._cells()
            with atomic_write(self.path) as file:
                writer = csv.DictWriter(file, columns, restval="")
                writer.writeheader()
                writer.writerows([*cells, row])

    def latest(self) -> list[dict[str, str]]:
        """The last labelled note of each reader on each image."""
        found = {(row["reader"], row["image"]): row for row in self.rows() if row["label"]}
        return list(found.values())


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"the {what} of a note is a text, and not {shortened(ascii(value))}")
    text = " ".join(value.split())
    if len(text) > LONGEST[what]:
        raise InputError(f"the {what} of a note has at most {LONGEST[what]:,} characters")
    if not text.encode("utf-8", "replace").decode() == text or "\0" in text:
        raise InputError(f"the {what} of a note is not valid text; type it again")
    return text


def _quoted(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def _unquoted(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell[1:]) else cell


def agreement(
    notes: Sequence[Mapping[str, str]], predictions: Mapping[str, str], run: str
) -> dict[str, Any]:
    """How far notes and a run's predictions agree: Cohen's kappa with its 95 % interval.

    Args:
        notes: labelled notes, of one or several readers.
        predictions: image -> the class that the run predicts; images without one are left out.

    Source: Cohen 1960; the interval as in Fleiss, Cohen and Everitt 1969 (statsmodels).
    """
    used = [note for note in notes if note["image"] in predictions]
    left_out = len(notes) - len(used)
    readers = sorted({note["reader"] for note in used})
    found = _kappa(used, predictions)
    text = _sentence(found, run)
    if left_out:
        text += f" {left_out} of {len(notes)} notes are on images that are not open here."
    by_reader = []
    if len(readers) > 1:
        for reader in readers:
            own = _kappa([note for note in used if note["reader"] == reader], predictions)
            by_reader.append({"reader": reader, **own})
    return {**found, "text": text, "readers": by_reader}


def _kappa(notes: Sequence[Mapping[str, str]], predictions: Mapping[str, str]) -> dict[str, Any]:
    from sklearn.metrics import cohen_kappa_score, confusion_matrix
    from statsmodels.stats.inter_rater import cohens_kappa

    said = [note["label"] for note in notes]
    predicted = [predictions[note["image"]] for note in notes]
    names = sorted({*said, *predicted})
    found: dict[str, Any] = {
        "kappa": None,
        "interval": None,
        "images": len(notes),
        "agreed": sum(a == b for a, b in zip(said, predicted, strict=True)),
    }
    if len(names) < 2:  # of one class alone, kappa is not defined
        return found
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found["kappa"] = float(cohen_kappa_score(said, predicted, labels=names))
        table = cohens_kappa(confusion_matrix(said, predicted, labels=names))
    limits = [float(table.kappa_low), float(table.kappa_upp)]
    if np.isfinite(limits).all() and len(notes) > 2:
        found["interval"] = [max(-1.0, limits[0]), min(1.0, limits[1])]
    return found


def _sentence(found: Mapping[str, Any], run: str) -> str:
    if not found["images"]:
        return "There are no labelled notes on images that are open here."
    text = f"{found['agreed']} of {found['images']} notes name the class that {run} predicts"
    if found["kappa"] is None:
        return f"{text}; kappa is not defined, because all name one class."
    text += f"; Cohen's kappa {found['kappa']:.2f}"
    if found["interval"]:
        low, high = found["interval"]
        text += f" [{low:.2f}, {high:.2f}]"
    return f"{text}."
