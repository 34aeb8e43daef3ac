"""Do heat maps find what is there? Measured where the drawing says where each symptom is.

Two measures, for each symptom on the images that show it:

- pointing: the share of images whose hottest place is at most ``TOLERANCE`` pixels from the
  symptom (Zhang et al., IJCV 2018, https://arxiv.org/abs/1608.00507);
- share: how much of the heat lies on the symptom, the mean over images.

A map that always shows the centre and a random one are measured in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from core.errors import InputError
from core.tables import read_table
from datasets.drawing import GRID_X, GRID_Y, SIZE
from datasets.synthetic import attribute_masks
from engine.loading import LoadedRun
from results import statistics
from results.rendering import Estimate, Table

from .attributes import PAIRS, Pairs, read_pairs
from .heatmaps import DEFAULT, METHODS, maps_of_views, stretched, symptoms_of

TOLERANCE = 4  # pixels of 64: the source's 15 of about 224
BASELINES = ("centre", "random")
WIDTH = 0.5  # deviation of the centre's Gaussian, in half sides
CELLS = 8  # places of a side of the random maps
BATCH = 32
Masks = Mapping[str, np.ndarray]  # name -> [64, 64] bool


@dataclass(frozen=True)
class Localisation:
    """How well one method finds one symptom on the n images that show it.

    Attributes:
        method: one of ``METHODS`` or ``BASELINES``.
        hits: [n] whether the hottest place is on the symptom. shares: [n] of the heat on it.
    """

    classname: str
    symptom: str
    method: str
    hits: np.ndarray
    shares: np.ndarray
    baselines: Sequence["Localisation"] = ()

    @property
    def beats(self) -> bool | None:
        """Whether it finds the symptom better than each baseline; None for a baseline.

        More of its heat must be on the symptom (the 95 % interval of the mean difference over
        images lies above zero), and it must point to it at least as often.
        """
        if self.method in BASELINES:
            return None
        return all(
            mean_interval(self.shares - other.shares)[0] > 0
            and self.hits.mean() >= other.hits.mean()
            for other in self.baselines
        )

    def row(self) -> dict[str, Any]:
        """As a row of the table."""
        pointing, share = mean_interval(self.hits), mean_interval(self.shares)
        return {
            "class": self.classname,
            "symptom": self.symptom,
            "method": self.method,
            "pictures": len(self.hits),
            "pointing": float(self.hits.mean()),
            "pointing_low": pointing[0],
            "pointing_high": pointing[1],
            "share": float(self.shares.mean()),
            "share_low": share[0],
            "share_high": share[1],
            "beats": self.beats,
        }


def localisation(
    run: LoadedRun, split: str = "test", methods: Sequence[str] = METHODS
) -> list[Localisation]:
    """Measure the heat maps of a run's symptoms on the images of a split.

    Returns:
        for each symptom that has a place, class by class: one for each method, one for each
        baseline.

    Raises:
        InputError: where the symptoms are is not known, or the run's method reads no symptoms.
    """
    masks = symptom_masks(run, split)
    views = run.views([picture.impath for picture in run.pictures(split)])
    symptoms = symptoms_of(run)
    maps = {name: _of_method(run, views, name) for name in methods}
    maps |= {name: _of_baseline(name, (len(views), len(symptoms))) for name in BASELINES}
    found = []
    for place, symptom in enumerate(symptoms):
        shown = [i for i, known in enumerate(masks) if symptom.phrase.casefold() in known]
        if not shown:
            continue
        truth = [masks[i][symptom.phrase.casefold()] for i in shown]
        measured = {name: measure(own[shown, place], truth) for name, own in maps.items()}
        names = symptom.classname, symptom.phrase
        baselines = [Localisation(*names, name, *measured[name]) for name in BASELINES]
        found += [Localisation(*names, name, *measured[name], baselines) for name in methods]
        found += baselines
    return found


def table_of(found: Sequence[Localisation], title: str) -> Table:
    """The measurements as a table, a line for each symptom and method."""
    lines: list[list[Any]] = []
    for one in found:
        row = one.row()
        measures = [
            Estimate(row[key], low=row[f"{key}_low"], high=row[f"{key}_high"])
            for key in ("pointing", "share")
        ]
        finds = {None: "", True: "yes", False: "no"}[one.beats]
        name = f"{one.classname}: {one.symptom}"
        lines.append([name, one.method, len(one.hits), *measures, finds])
    headers = ["symptom", "map", "images", "pointing", "share of heat", "finds it"]
    notes = [
        "means over the images that show the symptom, with 95 % bootstrap intervals",
        f"pointing: the hottest place is at most {TOLERANCE} of {SIZE} pixels from the symptom",
        "share of heat: the part of the heat that lies on the symptom",
        "finds it: the share is larger than that of centre and of random, with the interval of the "
        "difference above zero, and it points to the symptom at least as often",
    ]
    return Table(title, headers, lines, notes, text_columns=2)


def found_symptoms(run: LoadedRun, method: str = DEFAULT) -> dict[tuple[str, str], bool] | None:
    """Whether ``method`` finds a symptom, {(class, symptom): beats both baselines}.

    Measured on the validation images, so that the test images stay unused. Symptoms without a place
    are not in it. None where nothing is known of the places: the dataset is not drawn by this
    program, is not here, or has no file of attribute pairs.
    """
    try:
        known = hasattr(run.dataset, "drawn_from") and _pairs_file(run).is_file()
    except InputError:  # own images can be explained without the run's dataset
        return None
    if not known:
        return None
    return {
        (one.classname, one.symptom): bool(one.beats)
        for one in localisation(run, "val", [method])
        if one.method == method
    }


def measure(maps: np.ndarray, masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pointing hits [n] and shares [n] of the heat that lies on the masks.

    Args:
        maps: [n, H, W]; heat is what is above zero. masks: n of [H, W] bool, none empty.

    Returns:
        arrays of floats; a map without heat has the share that an even one has.
    """
    hits, shares = [], []
    for heat, mask in zip(maps, masks, strict=True):
        hottest = np.unravel_index(heat.argmax(), heat.shape)
        hits.append(distance_transform_edt(~mask)[hottest] <= TOLERANCE)
        heat = np.clip(heat.astype(np.float64), 0, None)
        shares.append(heat[mask].sum() / heat.sum() if heat.any() else mask.mean())
    return np.array(hits, float), np.array(shares)


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean of [n] values, one for each image."""
    draws = [weights @ values / len(values) for weights in statistics.resamples(len(values))]
    return statistics.interval(np.concatenate(draws))


def symptom_masks(run: LoadedRun, split: str) -> list[Masks]:
    """Where each image of a split shows the run's symptoms, as far as the drawing tells."""
    dataset = run.dataset
    if not hasattr(dataset, "drawn_from"):
        raise InputError(
            f"{run.cfg.RUN.DATASET}: nothing says where its images show a symptom; heat maps can "
            "be checked on synthderm, synthskin and synthchest, which this program draws"
        )
    world, seed = dataset.drawn_from
    table = Path(dataset.dataset_dir) / "attributes.csv"
    rows = {row["picture"]: (i, row) for i, (_, row) in enumerate(read_table(table).rows)}
    pairs = read_pairs(_pairs_file(run))
    masks = []
    for picture in run.pictures(split):
        index, row = rows[picture.id]
        places, attributes = attribute_masks(world, seed, index, row["class"])
        if any(row[name] != value for name, value in attributes.items()):
            raise InputError(f"{table}: was drawn by another version; draw the dataset again")
        masks.append(_of_symptoms(pairs, places, attributes))
    return masks


def _pairs_file(run: LoadedRun) -> Path:
    return PAIRS / f"{run.cfg.RUN.DATASET}.json"


def _of_symptoms(pairs: Pairs, places: Masks, attributes: Mapping[str, str]) -> Masks:
    """Masks by symptom, in small letters: all of the places that show it."""
    found: dict[str, np.ndarray] = {}
    for symptom, shown_by in pairs:
        for name, values in shown_by.items():
            if attributes[name] in values and name in places and places[name].any():
                key = symptom.casefold()
                found[key] = found.get(key, False) | places[name]
    return found


def _of_method(run: LoadedRun, views: Tensor, method: str) -> np.ndarray:
    """[n, S, 64, 64] maps."""
    parts = [maps_of_views(run, batch, method) for batch in views.split(BATCH)]
    return stretched(np.concatenate(parts), SIZE, SIZE)


def _of_baseline(name: str, shape: tuple[int, int]) -> np.ndarray:
    """[n, S, 64, 64] maps that know nothing of the image, above their mean like the others."""
    if name == "centre":
        map_ = np.exp(-(GRID_X**2 + GRID_Y**2) / (2 * WIDTH**2))
        return np.broadcast_to(map_ - map_.mean(), (*shape, SIZE, SIZE))
    small = np.random.default_rng(0).standard_normal((*shape, CELLS, CELLS), dtype=np.float32)
    return stretched(small - small.mean(axis=(2, 3), keepdims=True), SIZE, SIZE)
