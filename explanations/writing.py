"""Explanations into files: a PNG for each picture, explanations.csv, and a page."""

import csv
import re
import sys
from pathlib import Path

from tqdm import tqdm

from core.files import atomic_write, fingerprint
from datasets.pictures import read_picture
from reporting.pages import write_page

from .drawing import draw_explanation, verdict

COLUMNS = (
    "picture",
    "truth",
    "prediction",
    "version",
    "class",
    "class_probability",
    "class_logit",
    "symptom",
    "similarity",
    "standardised",
    "weight",
    "contribution",
    "above_average",
)
DPI = 130
LARGEST = 640  # pixels of a drawn picture's longer side


def write_explanations(folder, run, chosen, explanation, changed=None, others=None, **said):
    """Draw, tabulate and describe explained pictures.

    Args:
        folder: where to. run: ``LoadedRun``. chosen: n ``Chosen`` pictures.
        explanation: ``Explanation`` of them. changed: with other symptoms, or None.
        others: n lines on another run's answers, or None.
        said: ``selection``, ``change`` and ``words`` for the page.

    Returns:
        the page's path.
    """
    folder = Path(folder)
    versions = {"as trained": explanation} | ({"what if": changed} if changed else {})
    write_rows(folder / "explanations.csv", COLUMNS, _csv_rows(chosen, versions))
    items = []
    bar = tqdm(chosen, desc="drawing", leave=False, disable=None, file=sys.stderr)
    for i, picture in enumerate(bar):
        file = f"pictures/{file_name(picture.name)}.png"
        other = others[i] if others else ""
        image = read_picture(picture.path)
        image.thumbnail((LARGEST, LARGEST))
        figure = draw_explanation(
            image, explanation, i, picture.truth, picture.name, changed, other
        )
        save_png(figure, folder / file)
        right = explanation.prediction[i] == picture.truth
        items.append(
            {
                "name": picture.name,
                "file": file,
                "size": [round(side * DPI) for side in figure.get_size_inches()],
                "verdict": ". ".join(filter(None, [verdict(explanation, i, picture.truth), other])),
                "outcome": "" if picture.truth is None else "good" if right else "bad",
                "versions": [
                    {"title": title, "rows": version.rows(i)} for title, version in versions.items()
                ],
            }
        )
    return write_page(
        folder / "index.html",
        "explanations.html.jinja",
        run=run,
        items=items,
        standardised=explanation.standardised is not None,
        **said,
    )


def file_name(name):
    """A picture's name as one that any file system takes; two pictures never share one."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:]
    return plain if plain == name else f"{plain}-{fingerprint(name)[:6]}"


def save_png(figure, path):
    """Write a matplotlib figure as PNG, whole or not at all."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=DPI)


def write_rows(path, columns, rows):
    """Write dicts as CSV, numbers with all digits, None and NaN as nothing."""
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row[name]) for name in columns])


def _cell(value):
    if value is None or value != value:
        return ""
    return repr(float(value)) if isinstance(value, float) else value


def _csv_rows(chosen, versions):
    for i, picture in enumerate(chosen):
        for title, version in versions.items():
            names = version.classnames
            of_picture = {
                "picture": picture.name,
                "truth": "" if picture.truth is None else names[picture.truth],
                "prediction": names[version.prediction[i]],
                "version": title,
            }
            for row in version.rows(i):
                yield of_picture | row
