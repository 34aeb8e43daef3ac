"""How far each phrase can be used: does it tell its class apart, does it mean what it says?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.loading import LoadedRun
from explanations.drift import similarities
from explanations.heatmaps import Symptom, symptoms_of
from explanations.reliability import Reliability
from explanations.what_if import merge_of
from results.statistics import delong_interval
from symptom_generator.check import CHANCE

Area = tuple[float, float, float]


def checked(
    runs: Sequence[LoadedRun],
    places: dict[tuple[int, int], Reliability],
    new: Sequence[str],
    weights: dict[tuple[str, str], float],
) -> list[dict[str, Any]]:
    """A row for each phrase, measured on the training images.

    ``auc`` is the area under the ROC curve of the phrase's similarity, as the run reads it, of its
    class against the rest; ``auc_untrained`` the same of the words alone, as before any training.

    Args:
        runs: the seeds, reading the phrases. places: what ``reliability`` gave for them.
        new: classes without images. weights: (class, phrase) -> its factor.
    """
    untrained = _untrained_areas(runs[0]) if places else {}
    rows = []
    for symptom in symptoms_of(runs[0]):
        place = symptom.row, symptom.column
        own = places.get(place)
        before = untrained.get(place)
        area = own.area if own else None
        reason = _reason(symptom, own, new)
        rows.append(
            {
                "class": symptom.classname,
                "phrase": symptom.phrase,
                "weight": weights.get((symptom.classname, symptom.phrase), 1.0),
                "auc": area[0] if area else None,
                "interval": list(area[1:]) if area else None,
                "auc_untrained": before[0] if before else None,
                "interval_untrained": list(before[1:]) if before else None,
                "drift": _drift(own),
                "weak": bool(reason) and symptom.classname not in new and bool(own and own.area),
                "reason": reason,
            }
        )
    return rows


def _drift(own: Reliability | None) -> dict[str, Any] | None:
    if own is None or own.drift is None:
        return None
    drift = own.drift
    return {
        "correlation": drift.correlation,
        "interval": [drift.low, drift.high],
        "verdict": drift.verdict,
        "text": own.meaning,
        "images": drift.images,
    }


def _reason(symptom: Symptom, own: Reliability | None, new: Sequence[str]) -> str:
    """Why a phrase is weak, or why nothing is known of it; empty for one that can be used."""
    if symptom.classname in new:
        return "there are no training images of this class"
    if own is None:
        return "the training images are missing"
    parts = []
    if own.area is None:
        parts.append("there are no training images of this class, or none of any other class")
    elif own.area[2] < 0.5:
        parts.append(
            f"images of other classes are more similar to it than those of {symptom.classname}"
        )
    elif own.area[0] < CHANCE or own.area[1] <= 0.5:
        parts.append(f"it hardly tells {symptom.classname} from the other classes")
    if own.is_lost:
        parts.append("it no longer means what its words say")
    return "; ".join(parts)


def _untrained_areas(run: LoadedRun) -> dict[tuple[int, int], Area]:
    """AUC with DeLong's interval of each phrase's words alone, for its own class."""
    model, _ = merge_of(run)
    labels = np.array([int(picture.label) for picture in run.pictures("train")])
    before, _ = similarities(model, run.features("train"))
    owns = model.owns.cpu().numpy()
    return {
        (int(c), int(j)): delong_interval(labels == c, before[:, c, j])
        for c, j in zip(*np.nonzero(owns), strict=True)
        if 0 < (labels == c).sum() < len(labels)
    }
