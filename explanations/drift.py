"""Does a symptom still mean what its words say, after training?

A learned context may turn a symptom's feature away from its words: then an explanation names what
the model does not look for. How much it turned can be measured without labels. Over the training
images, the similarities to the untrained symptom (the phrase alone, without a context, encoded by
the frozen text encoder) are ranked against those to the trained one. Spearman's correlation of the
two is 1 if the trained symptom orders the images as its words do, and negative if it reverses them.
"""

import math
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import norm, spearmanr
from torch import Tensor
from torch.nn import functional as F

from core.errors import InputError
from engine.loading import LoadedRun
from engine.symptom_model import SymptomModel
from results.meaning import COLUMNS
from results.statistics import LEVEL

from .attributes import PAIRS, ShownAttribute, read_pairs, shown_attributes, true_attributes
from .what_if import merge_of

KEPT = 0.8  # an interval of the correlation above this: kept
WEAKENED = 0.5  # above this: weakened; below its negative: reversed; anywhere else: lost
FEWEST = 20  # images; the order of fewer says too little
WARNED = ("lost", "reversed")  # verdicts under which an explanation misleads

Area = tuple[float, float, float]  # AUC and its interval


class AttributeArea(NamedTuple):
    """How well a symptom's similarity ranks images by the attribute that it describes.

    Attributes:
        attribute: in words. images: whose attributes are known. shown: of them, those that show it.
        before, after: AUC of the untrained and of the trained symptom, each with DeLong's 95 %
            interval; None if all images show the attribute, or none does.
    """

    attribute: str
    images: int
    shown: int
    before: Area | None
    after: Area | None


class SymptomDrift(NamedTuple):
    """How much of a symptom's meaning training left.

    Attributes:
        images: how many the correlation is over.
        correlation: Spearman's, of the similarities to the untrained and to the trained symptom;
            NaN where one of them is the same for all images.
        low, high: its 95 % interval.
        verdict: kept, weakened, lost or reversed; unclear where the images are too few.
        attributes: one for each attribute recorded for the symptom.
    """

    classname: str
    symptom: str
    images: int
    correlation: float
    low: float
    high: float
    verdict: str
    attributes: tuple[AttributeArea, ...] = ()


def meaning_drift(
    run: LoadedRun, places: Collection[tuple[int, int]] | None = None
) -> list[SymptomDrift] | None:
    """The drift of every symptom of a run, class by class in the order of its phrases.

    It is measured on the whole training split, also for a few-shot run: no label is used. The
    attributes' AUCs are measured on the same images.

    Args:
        places: (class, symptom) of those that are wanted; None: all.

    Returns:
        None, and a line on stderr, if the training images are missing.

    Raises:
        InputError: the run is not explainable.
    """
    model, _ = merge_of(run)  # or an error, before anything is read
    try:
        whole = run.with_all_shots
        features = whole.features("train")
    except InputError as error:
        print(f"the drift of the symptoms' meaning is not known: {error}", file=sys.stderr)
        return None
    return drift_of(model, model.phrases, features, _shown_in_training(whole), places)


def _shown_in_training(run: LoadedRun) -> list[ShownAttribute]:
    path = PAIRS / f"{run.cfg.RUN.DATASET}.json"
    truth = true_attributes(run.dataset) if path.is_file() else {}
    if not truth:
        return []
    return shown_attributes([p.id for p in run.pictures("train")], truth, read_pairs(path), path)


def drift_of(
    model: SymptomModel,
    phrases: Mapping[str, Sequence[str]],
    features: Tensor,
    shown: Sequence[ShownAttribute] = (),
    places: Collection[tuple[int, int]] | None = None,
) -> list[SymptomDrift]:
    """The drift of every symptom over images with features [n, d].

    Args:
        phrases: class name -> symptoms that it reads, those of the model.
        shown: which of the n images show which symptom's attribute.
        places: (class, symptom) of those that are wanted; None: all.
    """
    before, after = similarities(model, features)
    owns = model.owns.cpu().numpy()
    found = []
    for c, (classname, own_phrases) in enumerate(phrases.items()):
        for j, phrase in enumerate(own_phrases):
            if not owns[c, j] or (places is not None and (c, j) not in places):
                continue
            pair = before[:, c, j], after[:, c, j]
            correlation, low, high = rank_correlation(*pair)
            found.append(
                SymptomDrift(
                    classname,
                    phrase,
                    len(features),
                    correlation,
                    low,
                    high,
                    verdict(low, high, len(features)),
                    tuple(_areas(phrase, shown, *pair)),
                )
            )
    return found


def _areas(
    phrase: str, shown: Sequence[ShownAttribute], before: np.ndarray, after: np.ndarray
) -> Iterator[AttributeArea]:
    """The areas of a phrase with similarities [n] before and after training."""
    for own in shown:
        if own.symptom.casefold() == phrase.casefold():
            counts = len(own.shown), int(own.shown.sum())
            yield AttributeArea(own.attribute, *counts, own.area(before), own.area(after))


@torch.no_grad()
def similarities(model: SymptomModel, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Cosines [n, K, k] of images with features [n, d] to untrained and to trained symptoms."""
    image = F.normalize(features.to(model.mask.device).double(), dim=-1)
    untrained, trained = (
        torch.einsum("nd,ckd->nck", image, F.normalize(symptoms.double(), dim=-1)).cpu().numpy()
        for symptoms in (model.untrained_features(), model.symptom_features())
    )
    return untrained, trained


def rank_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Spearman's correlation of [n] values with its 95 % interval: (correlation, low, high).

    The interval is Fisher's z with the variance (1 + r^2 / 2) / (n - 3). All three are NaN where
    values do not vary, the interval alone with fewer than four. Images count as independent.

    Source: Bonett and Wright, Psychometrika 2000, 65:23-28.
    """
    nan = float("nan")
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return nan, nan, nan
    r = float(spearmanr(x, y).statistic)
    if len(x) < 4:
        return r, nan, nan
    margin = norm.ppf((1 + LEVEL) / 2) * math.sqrt((1 + r * r / 2) / (len(x) - 3))
    z = math.atanh(max(-1 + 1e-12, min(1 - 1e-12, r)))  # of a correlation of 1, z is infinite
    return r, math.tanh(z - margin), math.tanh(z + margin)


def verdict(low: float, high: float, images: int) -> str:
    """What the interval of a rank correlation over so many images says of a symptom."""
    if images < FEWEST or math.isnan(low):
        return "unclear"
    if low >= KEPT:
        return "kept"
    if low >= WEAKENED:
        return "weakened"
    return "reversed" if high <= -WEAKENED else "lost"


def warning(records: Iterable[SymptomDrift]) -> str | None:
    """A sentence that names the symptoms that lost their meaning; None if there are none."""
    records = list(records)
    names = [f"“{own.symptom}” ({own.classname})" for own in records if own.verdict in WARNED]
    if not names:
        return None
    return (
        f"Warning: {len(names)} of {len(records)} symptoms no longer mean what their words say. Do "
        f"not trust an explanation that uses them: {'; '.join(names)}."
    )


def rows(records: Iterable[SymptomDrift]) -> Iterator[dict[str, Any]]:
    """Rows of ``COLUMNS``: one for each attribute of a symptom, and one for a symptom without."""
    for record in records:
        of_symptom: dict[str, Any] = dict.fromkeys(COLUMNS)
        of_symptom |= {
            "class": record.classname,
            "symptom": record.symptom,
            "images": record.images,
            "correlation": record.correlation,
            "low": record.low,
            "high": record.high,
            "verdict": record.verdict,
        }
        if not record.attributes:
            yield of_symptom
        for area in record.attributes:
            yield of_symptom | {
                "attribute": area.attribute,
                "shown": area.shown,
                **_area_cells("auc_untrained", area.before),
                **_area_cells("auc", area.after),
            }


def _area_cells(name: str, area: Area | None) -> dict[str, float | None]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), area or (None,) * 3, strict=True))


def lines(records: Iterable[SymptomDrift]) -> Iterator[str]:
    """What is printed of each symptom."""
    for record in records:
        text = f"{record.verdict:9}{_with_interval(record.correlation, record.low, record.high)}"
        yield f"{text}  {record.classname}: {record.symptom}"
        for area in record.attributes:
            if area.before and area.after:
                yield (
                    f"{'':9}AUC untrained {area.before[0]:.3f}, trained "
                    f"{_with_interval(*area.after)}  | {area.attribute}"
                )


def _with_interval(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
