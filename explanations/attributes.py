"""Does a symptom's similarity follow the attribute it describes, where the dataset records it?

The file ``symptoms/attribute_pairs/<dataset>.json`` says which attribute a symptom describes::

    {"pairs": [{"symptom": "clear, well-defined edges", "shown_by": {"border": ["clear"]}}]}

An image shows the symptom if any of the named attributes has one of the values listed for it.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from core.errors import InputError, shortened
from core.tables import read_table
from results import statistics

from .explanation import Explanation

Attributes = Mapping[str, Mapping[str, str]]  # image id -> {attribute: value}
Pairs = Sequence[tuple[str, Mapping[str, Sequence[str]]]]  # (symptom, {attribute: values})
PAIRS = Path("symptoms") / "attribute_pairs"
SEVEN_POINTS = (
    "pigment_network",
    "streaks",
    "pigmentation",
    "regression_structures",
    "dots_and_globules",
    "blue_whitish_veil",
    "vascular_structures",
)


def true_attributes(dataset: Any) -> Attributes:
    """Attributes that the dataset records for its images; {} if it records none.

    They are read from ``attributes.csv`` (columns picture, class, then one per attribute), which
    the synthetic datasets write; for Derm7pt, from the columns of its meta.csv that score the
    seven-point checklist.
    """
    folder = Path(dataset.dataset_dir)
    if (folder / "attributes.csv").is_file():
        return _drawn(folder / "attributes.csv")
    table = next(folder.glob("[mM]eta/[mM]eta.csv"), None)
    return _seven_points(table) if table else {}


def _drawn(table: Path) -> Attributes:
    found = read_table(table)
    if "picture" not in found.columns:
        raise InputError(f"{table}: has no column 'picture'; draw the dataset again")
    return {
        row["picture"]: {name: v for name, v in row.items() if name not in ("picture", "class")}
        for _, row in found.rows
    }


def _seven_points(table: Path) -> Attributes:
    found = read_table(table, errors="replace")
    columns = {name: found.column(name) for name in SEVEN_POINTS if found.column(name)}
    derm = found.column("derm")
    return {
        f"images/{row[derm]}".casefold(): {
            name: " ".join(row[column].lower().split()) for name, column in columns.items()
        }
        for _, row in found.rows
        if derm and row[derm]
    }


class _Pair(BaseModel):
    symptom: str
    shown_by: dict[str, list[str]]


class _PairsFile(BaseModel):
    pairs: list[_Pair]


def read_pairs(path: str | Path) -> Pairs:
    """The pairs of a file: a list of (symptom, {attribute: [values]}).

    Raises:
        InputError: the file is missing, cannot be read or is not of the form above.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        file = _PairsFile.model_validate_json(text, strict=True)
    except FileNotFoundError:
        raise InputError(f"{path}: this file of attribute pairs does not exist") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # not UTF-8, not JSON, or of another form
        reason = shortened(" ".join(str(error).split()), 160)
        raise InputError(
            f'{path}: must contain {{"pairs": [{{"symptom": ..., "shown_by": {{attribute: '
            f"[values]}}}}]}} ({reason})"
        ) from None
    return [(pair.symptom, pair.shown_by) for pair in file.pairs]


def attribute_areas(
    explanation: Explanation,
    identities: Sequence[str],
    truth: Attributes,
    pairs: Pairs,
    path: str | Path = "the pairs",
) -> list[dict[str, Any]]:
    """AUC of each paired symptom's similarity against its attribute, with DeLong's interval.

    A listed value that no image of ``truth`` has is reported on stderr: it may be misspelt.

    Args:
        explanation: of n images. identities: their n ids.
        path: the file of the pairs, for messages.

    Returns:
        rows of dicts: class, symptom, attribute, pictures, shown, auc, low, high; auc is None if
        all images show the attribute, or none does.

    Raises:
        InputError: a pair names an attribute that no image has.
    """
    rows = []
    for pair in shown_attributes(identities, truth, pairs, path):
        for classname, phrase, scores in _similarities(explanation, pair.symptom):
            row = {
                "class": classname,
                "symptom": phrase,
                "attribute": pair.attribute,
                "pictures": len(pair.shown),
                "shown": int(pair.shown.sum()),
            }
            auc, low, high = pair.area(scores) or (None, None, None)
            rows.append(row | {"auc": auc, "low": low, "high": high})
    return rows


class ShownAttribute(NamedTuple):
    """Which images show the attribute that a symptom describes."""

    symptom: str
    attribute: str  # in words, as "border: blurred / jagged"
    places: np.ndarray  # the images whose attributes are known
    shown: np.ndarray  # bool, one for each of ``places``

    def area(self, scores: np.ndarray) -> tuple[float, float, float] | None:
        """AUC of the scores [n] of all images and DeLong's interval; None without two classes."""
        if self.shown.all() or not self.shown.any():
            return None
        return statistics.delong_interval(self.shown, scores[self.places])


def shown_attributes(
    identities: Sequence[str], truth: Attributes, pairs: Pairs, path: str | Path = "the pairs"
) -> list[ShownAttribute]:
    """One ``ShownAttribute`` for each pair; arguments and errors as in ``attribute_areas``."""
    truth = {identity.casefold(): attributes for identity, attributes in truth.items()}
    _check_values(truth, pairs, path)
    places = [i for i, identity in enumerate(identities) if identity.casefold() in truth]
    attributes = [truth[identities[i].casefold()] for i in places]
    return [
        ShownAttribute(
            symptom,
            _describe(shown_by),
            np.array(places, dtype=int),
            np.array([any(own[a] in v for a, v in shown_by.items()) for own in attributes], bool),
        )
        for symptom, shown_by in pairs
    ]


def _similarities(explanation: Explanation, symptom: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """(class name, phrase, [n] similarities) wherever a class has the symptom."""
    for c, (classname, phrases) in enumerate(explanation.phrases.items()):
        for j, phrase in enumerate(phrases):
            if explanation.has(c, j) and phrase.casefold() == symptom.casefold():
                yield classname, phrase, explanation.parts.similarity[:, c, j]


def _check_values(truth: Attributes, pairs: Pairs, path: str | Path) -> None:
    """Reject unknown attributes; report unknown values, each once."""
    values: dict[str, set[str]] = {}
    for attributes in truth.values():
        for name, value in attributes.items():
            values.setdefault(name, set()).add(value)
    unknown: dict[tuple[str, str], None] = {}  # a set in order
    for _, shown_by in pairs:
        for name, listed in shown_by.items():
            if name not in values:
                raise InputError(
                    f"{path}: there is no attribute {name!r}; choose one of {', '.join(values)}"
                )
            unknown |= {(name, value): None for value in listed if value not in values[name]}
    for name, value in unknown:
        have = ", ".join(sorted(values[name]))
        print(f"{path}: no image has {name} {value!r}; the values are: {have}", file=sys.stderr)


def _describe(shown_by: Mapping[str, Sequence[str]]) -> str:
    return ", or ".join(f"{name}: {' / '.join(values)}" for name, values in shown_by.items())
