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
from engine.ensemble import Ensemble
from explanations.drawing import draw_explanation
from explanations.explanation import Explanation
from explanations.selection import Chosen
from explanations.words import NearestWords

from .explanation_items import Places, Trust, evidence, prediction, warned, warning_of
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
    "symptom_of",
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
    changed_reliability: Places | None = None  # of those symptoms
    others: Sequence[str] = ()  # n lines on another run's predictions; empty: there is none
    selection: str = ""  # which images these are
    change: str = ""  # which symptoms are others in ``changed``
    words: NearestWords | None = None
    figures: bool = False  # whether to draw each explanation as a PNG too

    @property
    def versions(self) -> dict[str, tuple[Explanation, Places]]:
        """Title -> explanation, and the reliability of its symptoms."""
        found = {"as trained": (self.explanation, self.trust.reliability or {})}
        if self.changed is not None:
            found["what if"] = self.changed, self.changed_reliability or {}
        return found

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
    run = explained.ensemble.first
    maps = map_folder(folder, run, len(explained.chosen), reliability)
    return write_page(
        folder / "index.html",
        "explanations.html.jinja",
        ensemble=explained.ensemble,
        run=run,
        folder=str(run.folder if len(explained.ensemble) == 1 else run.folder.parent),
        items=[_item(folder, explained, maps, i) for i in bar],
        legend=legend_uri(),
        trust=explained.trust,
        reliability=list(reliability.values()),
        warning=warning_of(reliability),
        selection=explained.selection,
        change=explained.change,
        has_tokens=bool(explained.explanation.parts.own.any()),
        words=explained.words,
    )


def _item(folder: Path, explained: Explained, maps: MapFolder | None, i: int) -> dict[str, Any]:
    """Write the files of image ``i``; returns what the page shows of it."""
    chosen, explanation = explained.chosen[i], explained.explanation
    image = explained.ensemble.first.opened(chosen.path)
    image.thumbnail((LARGEST, LARGEST))
    stem = file_name(chosen.name)
    save_image(image, folder / "pictures" / f"{stem}.png")
    if explained.figures:
        figure = draw_explanation(
            image, explanation, i, chosen.truth, chosen.name, explained.changed, explained.other(i),
            warned(explanation, i, explained.trust.reliability),
        )  # fmt: skip
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
        "versions": [
            {
                "title": title,
                "warning": warned(version, i, reliability),
                "prediction": prediction(version, i, explained.trust),
                "evidence": evidence(version, i, reliability),
                "rows": version.rows(i),
            }
            for title, (version, reliability) in explained.versions.items()
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
        for title, (version, _) in explained.versions.items():
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
