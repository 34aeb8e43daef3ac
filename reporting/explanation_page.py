"""Explanations as files: a PNG for each image, explanations.csv, and a page."""

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm import tqdm

from core.files import atomic_write, fingerprint
from datasets.pictures import read_picture
from engine.loading import LoadedRun
from explanations.drawing import draw_explanation, verdict
from explanations.explanation import Explanation
from explanations.selection import Chosen
from explanations.words import NearestWords

from .pages import write_page

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
LARGEST = 640  # pixels of a drawn image's longer side


@dataclass(frozen=True)
class Explained:
    """Explained images of a run, and what the page says about them."""

    run: LoadedRun
    chosen: Sequence[Chosen]  # n images
    explanation: Explanation  # of them
    changed: Explanation | None = None  # of them, with other symptoms
    others: Sequence[str] = ()  # n lines on another run's predictions; empty: there is none
    selection: str = ""  # which images these are
    change: str = ""  # which symptoms are others in ``changed``
    words: NearestWords | None = None

    @property
    def versions(self) -> dict[str, Explanation]:
        """Title -> explanation."""
        changed = {} if self.changed is None else {"what if": self.changed}
        return {"as trained": self.explanation} | changed

    def other(self, i: int) -> str:
        return self.others[i] if self.others else ""


def write_explanations(folder: str | Path, explained: Explained) -> Path:
    """Write the images, the table and the page; returns the page's path."""
    folder = Path(folder)
    write_rows(folder / "explanations.csv", COLUMNS, _csv_rows(explained))
    places = range(len(explained.chosen))
    bar = tqdm(places, desc="drawing", leave=False, disable=None, file=sys.stderr)
    return write_page(
        folder / "index.html",
        "explanations.html.jinja",
        run=explained.run,
        items=[_draw(folder, explained, i) for i in bar],
        standardised=explained.explanation.standardised is not None,
        selection=explained.selection,
        change=explained.change,
        words=explained.words,
    )


def _draw(folder: Path, explained: Explained, i: int) -> dict[str, Any]:
    """Write the PNG of image ``i``; returns what the page shows of it."""
    chosen, explanation, other = explained.chosen[i], explained.explanation, explained.other(i)
    image = read_picture(chosen.path)
    image.thumbnail((LARGEST, LARGEST))
    figure = draw_explanation(
        image, explanation, i, chosen.truth, chosen.name, explained.changed, other
    )
    file = f"pictures/{file_name(chosen.name)}.png"
    save_png(figure, folder / file)
    correct = explanation.prediction[i] == chosen.truth
    return {
        "name": chosen.name,
        "file": file,
        "size": [round(side * DPI) for side in figure.get_size_inches()],
        "verdict": _caption(explained, i),
        "outcome": "" if chosen.truth is None else "good" if correct else "bad",
        "versions": [
            {"title": title, "rows": version.rows(i)}
            for title, version in explained.versions.items()
        ],
    }


def _caption(explained: Explained, i: int) -> str:
    truth = explained.chosen[i].truth
    texts = [verdict(explained.explanation, i, truth)]
    if explained.changed:
        texts.append(f"What if: {verdict(explained.changed, i, truth)}")
    return ". ".join(filter(None, [*texts, explained.other(i)]))


def file_name(name: str) -> str:
    """An image's name as a file name for any file system; two images never share one."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-80:]
    return safe if safe == name else f"{safe}-{fingerprint(name)[:6]}"


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a matplotlib figure as PNG; the file is complete or absent."""
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=DPI)


def write_rows(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write dicts as CSV: numbers with all digits, None and NaN as empty cells."""
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row[name]) for name in columns])


def _cell(value: Any) -> Any:
    if value is None or value != value:
        return ""
    return repr(float(value)) if isinstance(value, float) else value


def _csv_rows(explained: Explained) -> Iterator[dict[str, Any]]:
    for i, image in enumerate(explained.chosen):
        for title, version in explained.versions.items():
            names = version.classnames
            of_image = {
                "picture": image.name,
                "truth": "" if image.truth is None else names[image.truth],
                "prediction": names[version.prediction[i]],
                "version": title,
            }
            for row in version.rows(i):
                yield of_image | row
