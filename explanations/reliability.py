"""How far each symptom can be relied on: does it tell its class, does it mean what it says?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import InputError
from engine.loading import LoadedRun
from results import statistics

from .contributions import contributions
from .drift import WARNED, SymptomDrift, meaning_drift
from .heatmaps import Symptom, symptoms_of
from .what_if import merge_of

WORST_LAST = ("kept", "weakened", "unclear", "lost", "reversed")


@dataclass(frozen=True)
class Reliability:
    """What is known of one symptom of one class.

    Attributes:
        area: AUC of its similarity on the training images, of its class against the rest, with
            DeLong's 95 % interval; None if those images are missing. It needs no attributes, and it
            is high for a symptom that lost its meaning too.
        drift: how much of its meaning training left, with its attributes' AUCs; of several seeds
            the worst. None if the training images are missing.
        seeds: how many seeds have the drift's verdict, of how many.
    """

    classname: str
    symptom: str
    area: tuple[float, float, float] | None = None
    drift: SymptomDrift | None = None
    seeds: tuple[int, int] = (1, 1)

    @property
    def meaning(self) -> str:
        """The verdict on its meaning in words; of several seeds, how many have it."""
        if self.drift is None:
            return "meaning not known"
        some = "" if self.seeds[1] < 2 else f" ({self.seeds[0]} of {self.seeds[1]} seeds)"
        return f"meaning {self.drift.verdict}{some}"

    @property
    def is_lost(self) -> bool:
        """Whether an explanation that uses it needs a warning."""
        return self.drift is not None and self.drift.verdict in WARNED


def reliability(
    runs: Sequence[LoadedRun], known: Iterable[Reliability] = ()
) -> dict[tuple[int, int], Reliability]:
    """The reliability of every symptom of seeds of one run: (class, symptom) places -> record.

    Args:
        known: records of the same seeds with other symptoms. A symptom's record does not depend on
            the symptoms beside it, so only those of the others are measured.
    """
    before = {(own.classname, own.symptom): own for own in known}
    found = {}
    wanted = []
    for symptom in symptoms_of(runs[0]):
        place = symptom.row, symptom.column
        if own := before.get((symptom.classname, symptom.phrase)):
            found[place] = own
        else:
            wanted.append(symptom)
    if wanted:
        found |= _measured(runs, wanted)
    return dict(sorted(found.items()))


def _measured(
    runs: Sequence[LoadedRun], symptoms: Sequence[Symptom]
) -> dict[tuple[int, int], Reliability]:
    places = [(symptom.row, symptom.column) for symptom in symptoms]
    areas = _areas(runs, places)
    every = len(places) == len(symptoms_of(runs[0]))
    drifts = [meaning_drift(run) if every else meaning_drift(run, places) for run in runs]
    measured = [own for own in drifts if own is not None]
    found = {}
    for number, (place, symptom) in enumerate(zip(places, symptoms, strict=True)):
        records = [own[number] for own in measured]
        worst = max(
            records, key=lambda r: (WORST_LAST.index(r.verdict), -r.correlation), default=None
        )
        alike = sum(worst is not None and r.verdict == worst.verdict for r in records)
        found[place] = Reliability(
            symptom.classname,
            symptom.phrase,
            areas.get(place),
            worst,
            (alike, len(records)),
        )
    return found


def _areas(
    runs: Sequence[LoadedRun], places: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], tuple[float, float, float]]:
    """AUC of symptoms for their own classes, by the mean similarity over the seeds."""
    try:
        labels = np.array([picture.label for picture in runs[0].pictures("train")])
        features = runs[0].features("train")
    except InputError:  # ``meaning_drift`` says so
        return {}
    similarity = np.mean(
        [contributions(merge_of(run)[0], features).similarity for run in runs], axis=0
    )
    return {
        (c, j): statistics.delong_interval(labels == c, similarity[:, c, j])
        for c, j in places
        if 0 < (labels == c).sum() < len(labels)
    }
