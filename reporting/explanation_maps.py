"""Heat maps of an explained image's symptoms, as files beside the page."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from core.errors import InputError
from core.files import atomic_write
from engine.loading import LoadedRun
from explanations.evidence import Waterfall
from explanations.heatmap_drawing import data_uri, legend, overlay
from explanations.heatmaps import HeatMaps, heat_maps
from explanations.localisation import found_symptoms

from .explanation_items import Places

MOST = 50  # images of a page with heat maps
LARGEST = 320  # pixels of a map's longer side


@dataclass(frozen=True)
class MapFolder:
    """Draws the heat maps of a run's images into ``folder``/maps.

    Attributes:
        found: (class name, symptom) -> whether heat maps find it where the truth is known; None
            where it is not known. A symptom without a place in an image is not in it.
        reliability: of each symptom; empty where it is not known.
    """

    folder: Path
    run: LoadedRun
    found: dict[tuple[str, str], bool] | None
    reliability: Places

    def draw(self, image: Path, stem: str, fall: Waterfall) -> dict[str, Any]:
        """The maps of the symptoms of ``fall``, the strongest first; or the reason for none.

        A map that finds a symptom no better than one of the centre would is left out.
        """
        try:
            maps = heat_maps(self.run, image)
        except InputError as error:  # an image encoder without maps
            return {"reason": str(error)}
        index = {(s.row, s.column): n for n, s in enumerate(maps.symptoms)}
        checked = self.found is not None
        found: dict[str, Any] = {"shown": [], "missed": [], "placeless": [], "checked": checked}
        for step in fall.steps:
            for place in step.places[:1]:
                number = index[place]
                symptom = maps.symptoms[number]
                key = symptom.classname, symptom.phrase
                finds = True if self.found is None else self.found.get(key)
                if finds:
                    found["shown"].append(self._write(maps, number, stem))
                else:
                    found["placeless" if finds is None else "missed"].append(step.phrase)
        return found

    def _write(self, maps: HeatMaps, number: int, stem: str) -> dict[str, Any]:
        drawn = overlay(maps.image, maps.maps[number], maps.limit)
        drawn.thumbnail((LARGEST, LARGEST))
        file = f"maps/{stem}-{number + 1}.png"
        save_image(drawn, self.folder / file)
        symptom = maps.symptoms[number]
        own = self.reliability.get((symptom.row, symptom.column))
        return {
            "file": file,
            "size": drawn.size,
            "phrase": symptom.phrase,
            "class": symptom.classname,
            "meaning": own.meaning if own else "",
            "lost": own is not None and own.is_lost,
        }


def map_folder(folder: Path, run: LoadedRun, images: int, reliability: Places) -> MapFolder | None:
    """Where heat maps are drawn; None, with a line on stderr, where there are none.

    Args:
        images: how many the page shows.
    """
    if images > MOST:
        print(
            f"no heat maps: they are drawn for at most {MOST} images; choose them with --limit",
            file=sys.stderr,
        )
        return None
    try:
        return MapFolder(folder, run, found_symptoms(run), reliability)
    except InputError as error:
        print(f"no heat maps: {error}", file=sys.stderr)
        return None


def legend_uri() -> str:
    """The colours from no heat to the most, as an address."""
    return data_uri(legend())


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image as PNG; the file is complete or absent."""
    with atomic_write(path, "wb") as file:
        image.save(file, format="png")
