"""Does a symptom's similarity follow the attribute it speaks of, where the dataset knows the truth?

Which attribute a symptom speaks of is a small file, ``symptoms/attribute_pairs/<dataset>.json``::

    {"pairs": [{"symptom": "clear, well-defined edges", "shown_by": {"border": ["clear"]}}]}

A picture shows the symptom if any of the named attributes has one of the values listed for it.
"""

import json
import sys
from pathlib import Path

import numpy as np

from core.errors import InputError
from core.tables import read_table
from results import statistics

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


def true_attributes(dataset):
    """Picture id -> {attribute: value} of what the dataset knows; {} if it knows nothing.

    Read from ``attributes.csv`` (picture, class, then a column an attribute), which the drawn
    datasets bring; for Derm7pt, from the columns of its meta.csv that score the seven-point
    checklist.
    """
    folder = Path(dataset.dataset_dir)
    if (folder / "attributes.csv").is_file():
        return _drawn(folder / "attributes.csv")
    table = next(folder.glob("[mM]eta/[mM]eta.csv"), None)
    return _seven_points(table) if table else {}


def _drawn(table):
    found = read_table(table)
    if "picture" not in found.columns:
        raise InputError(f"{table}: has no column 'picture'; draw the dataset again")
    return {
        row["picture"]: {name: v for name, v in row.items() if name not in ("picture", "class")}
        for _, row in found.rows
    }


def _seven_points(table):
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


def read_pairs(path):
    """The pairs of a file: a list of (symptom, {attribute: [values]}).

    Raises:
        InputError: the file is missing or not of the form above.
    """
    path = Path(path)
    try:
        pairs = json.loads(path.read_text(encoding="utf-8-sig"))["pairs"]
        return [
            (pair["symptom"], {name: list(v) for name, v in pair["shown_by"].items()})
            for pair in pairs
        ]
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file of attribute pairs") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: should hold {{"pairs": [{{"symptom": ..., "shown_by": {{attribute: '
            f"[values]}}}}]}} ({error!r})"
        ) from None


def attribute_areas(explanation, identities, truth, pairs, path="the pairs"):
    """AUC of each paired symptom's similarity against its attribute, with DeLong's interval.

    Args:
        explanation: ``Explanation`` of n pictures.
        identities: their n ids. truth: what ``true_attributes`` gives. pairs: of ``read_pairs``.

    A value that no picture of ``truth`` has is named on stderr: it may be misspelt.

    Returns:
        rows of dicts: class, symptom, attribute, pictures, shown, auc, low, high; auc None where
        the pictures show the attribute all or not at all.

    Raises:
        InputError: a pair names an attribute that no picture has.
    """
    lowered = {key.casefold(): value for key, value in truth.items()}
    known = [lowered.get(identity.casefold()) for identity in identities]
    kept = [i for i, attributes in enumerate(known) if attributes is not None]
    values = {}
    for attributes in lowered.values():
        for name, value in attributes.items():
            values.setdefault(name, set()).add(value)
    rows, strange = [], {}
    for symptom, shown_by in pairs:
        for name, listed in shown_by.items():
            if name not in values:
                raise InputError(
                    f"{path}: there is no attribute {name!r}; choose one of {', '.join(values)}"
                )
            strange |= {(name, value): None for value in listed if value not in values[name]}
        shown = np.array([any(known[i][a] in v for a, v in shown_by.items()) for i in kept])
        for c, (classname, phrases) in enumerate(explanation.phrases.items()):
            for j, phrase in enumerate(phrases):
                if phrase.casefold() == symptom.casefold():
                    scores = explanation.parts.similarity[kept, c, j]
                    rows.append(
                        {
                            "class": classname,
                            "symptom": phrase,
                            "attribute": _describe(shown_by),
                            "pictures": len(kept),
                            "shown": int(shown.sum()),
                        }
                        | _area(shown, scores)
                    )
    for name, value in strange:
        known = ", ".join(sorted(values[name]))
        print(f"{path}: no picture has {name} {value!r}; there are: {known}", file=sys.stderr)
    return rows


def _area(shown, scores):
    if shown.all() or not shown.any():
        return {"auc": None, "low": None, "high": None}
    return dict(zip(("auc", "low", "high"), statistics.delong_interval(shown, scores), strict=True))


def _describe(shown_by):
    return ", or ".join(f"{name}: {' / '.join(values)}" for name, values in shown_by.items())
