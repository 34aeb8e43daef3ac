"""Explanations as files: the images, explanations.csv, a page, and figures where asked for."""

import csv
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from core.files import atomic_write, fingerprint
from datasets.pictures import read_picture
from engine.ensemble import Ensemble
from explanations.drawing import draw_explanation
from explanations.drift import warning
from explanations.explanation import Explanation
from explanations.selection import Chosen
from explanations.words import NearestWords

from .explanation_items import Trust, drifts, evidence, prediction, warned
from .explanation_maps import MapFolder, legend_uri, map_folder, save_image
from .pages import write_page

COLUMNS = (
    "picture",
    "truth",
    "prediction",
    "confidence",
    "rival",
    "margin",
    "unlike",
    "version",
    "class",
    "class_probability",
    "class_logit",
    "symptom",
    "similarity",
    "standardised",
    "weight",
    "contribution",
    "evidence",
    "effect",
)
RELIABILITY = ("class", "symptom", "auc", "low", "high", "meaning", "seeds_with_it", "seeds")
DPI = 130
LARGEST = 640  # pixels of a shown image's longer side


@dataclass(frozen=True)
class Explained:
    """Explained images of a run, and what the page says about them."""

    ensemble: Ensemble
    chosen: Sequence[Chosen]  # n images
    explanation: Explanation  # of them
    trust: Trust = Trust()
    distances: np.ndarray | None = None  # [n] to the training images; None where not known
    changed: Explanation | None = None  # of them, with other symptoms
    others: Sequence[str] = ()  # n lines on another run's predictions; empty: there is none
    selection: str = ""  # which images these are
    change: str = ""  # which symptoms are others in ``changed``
    words: NearestWords | None = None
    figures: bool = False  # whether to draw each explanation as a PNG too

    @property
    def versions(self) -> dict[str, Explanation]:
        """Title -> explanation."""
        changed = {} if self.changed is None else {"what if": self.changed}
        return {"as trained": self.explanation} | changed

    def other(self, i: int) -> str:
        return self.others[i] if self.others else ""

    def unlike(self, i: int) -> bool | None:
        """Whether image ``i`` is unlike the training images; None where that is not known."""
        if self.distances is None or self.trust.distance is None:
            return None
        return bool(self.distances[i] > self.trust.distance.threshold)


def write_explanations(folder: str | Path, explained: Explained) -> Path:
    """Write the images, the table and the page; returns the page's path."""
    folder = Path(folder)
    write_rows(folder / "explanations.csv", COLUMNS, _csv_rows(explained))
    write_rows(folder / "reliability.csv", RELIABILITY, _reliability_rows(explained.trust))
    places = range(len(explained.chosen))
    bar = tqdm(places, desc="writing", leave=False, disable=None, file=sys.stderr)
    reliability = explained.trust.reliability or {}
    maps = map_folder(folder, explained.ensemble.first, len(explained.chosen))
    return write_page(
        folder / "index.html",
        "explanations.html.jinja",
        ensemble=explained.ensemble,
        run=explained.ensemble.first,
        items=[_item(folder, explained, maps, i) for i in bar],
        legend=legend_uri(),
        trust=explained.trust,
        reliability=list(reliability.values()),
        warning=(warning(drifts(reliability)) or "").rstrip("."),
        selection=explained.selection,
        change=explained.change,
        words=explained.words,
    )


def _item(folder: Path, explained: Explained, maps: MapFolder | None, i: int) -> dict[str, Any]:
    """Write the files of image ``i``; returns what the page shows of it."""
    chosen, explanation, trust = explained.chosen[i], explained.explanation, explained.trust
    image = read_picture(chosen.path)
    image.thumbnail((LARGEST, LARGEST))
    stem = file_name(chosen.name)
    save_image(image, folder / "pictures" / f"{stem}.png")
    if explained.figures:
        figure = draw_explanation(
            image, explanation, i, chosen.truth, chosen.name, explained.changed, explained.other(i)
        )
        save_png(figure, folder / "figures" / f"{stem}.png")
    truth = None if chosen.truth is None else explanation.classnames[chosen.truth]
    correct = explanation.prediction[i] == chosen.truth
    fall = explanation.waterfall(i)
    return {
        "name": chosen.name,
        "file": f"pictures/{stem}.png",
        "size": image.size,
        "unlike": explained.unlike(i),
        "truth": truth,
        "outcome": "" if truth is None else "good" if correct else "bad",
        "other": explained.other(i),
        "maps": maps.draw(chosen.path, stem, fall) if maps and fall else None,
        "warning": warned(explanation, i, trust.reliability),
        "versions": [
            {
                "title": title,
                "prediction": prediction(version, i, trust),
                "evidence": evidence(version, i, trust.reliability if n == 0 else None),
                "rows": version.rows(i),
            }
            for n, (title, version) in enumerate(explained.versions.items())
        ],
    }


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


def _reliability_rows(trust: Trust) -> Iterator[dict[str, Any]]:
    for own in (trust.reliability or {}).values():
        areas = own.area or (None, None, None)
        values = (own.classname, own.symptom, *areas, own.drift.verdict if own.drift else None)
        yield dict(zip(RELIABILITY, (*values, *own.seeds), strict=True))


def _csv_rows(explained: Explained) -> Iterator[dict[str, Any]]:
    for i, image in enumerate(explained.chosen):
        unlike = explained.unlike(i)
        for title, version in explained.versions.items():
            names = version.classnames
            label, rival = int(version.prediction[i]), int(version.rival[i])
            of_image = {
                "picture": image.name,
                "truth": "" if image.truth is None else names[image.truth],
                "prediction": names[label],
                "confidence": explained.trust.confidence(version.probabilities[i])[label],
                "rival": names[rival],
                "margin": version.logits[i, label] - version.logits[i, rival],
                "unlike": "" if unlike is None else "yes" if unlike else "no",
                "version": title,
            }
            for row in version.rows(i):
                yield of_image | row
