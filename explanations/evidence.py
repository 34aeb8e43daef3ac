"""Signed evidence: what of a prediction's margin each symptom explains, above the average image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.symptom_model import SymptomModel

from .contributions import Contributions
from .reference import Reference, symptom_parts

OWN = "(no symptom: the learned tokens of the classes)"  # the part of MeP's g


@dataclass(frozen=True)
class Evidence:
    """The logits of n images as the training images' mean plus signed parts; float64.

    For every class c and every merge: logit_c = baseline_c + sum_j symptom_cj + own_c.
    """

    baseline: np.ndarray  # [K] mean logit of the training images
    symptom: np.ndarray  # [n, K, k] a symptom's part above its mean over them; 0 for padding
    own: np.ndarray  # [n, K] the same for the class's own token g; 0 without MeP

    @property
    def logits(self) -> np.ndarray:
        """[n, K], the sum of all parts."""
        return self.baseline + self.symptom.sum(axis=2) + self.own


def evidence_of(model: SymptomModel, parts: Contributions, reference: Reference) -> Evidence:
    """The evidence in the contributions of some images."""
    symptom = symptom_parts(model, parts, reference.similarity) - reference.symptom
    return Evidence(reference.logits, symptom, parts.own - reference.own)


@dataclass(frozen=True)
class Step:
    """A bar of a waterfall: one symptom, or the classes' own tokens (``OWN``, no places).

    A symptom that both classes read is one bar, with what it adds to the margin on balance.
    """

    phrase: str
    value: float  # log-odds; above zero it speaks for the predicted class
    places: tuple[tuple[int, int], ...] = ()  # (class, symptom) for each class that has it


@dataclass(frozen=True)
class Waterfall:
    """The margin of one image between two classes, in log-odds, as a sum of steps.

    The margin is the difference of the two logits: log(p_one / p_rival).
    """

    one: int
    rival: int
    baseline: float  # mean margin of the training images
    steps: Sequence[Step]  # the greatest first, ``OWN`` last

    @property
    def margin(self) -> float:
        """``baseline`` plus all steps."""
        return self.baseline + sum(step.value for step in self.steps)

    def strongest(self, sign: int, count: int = 3) -> list[Step]:
        """The symptoms that speak most for (``sign`` 1) or against (-1) the predicted class."""
        named = [step for step in self.steps if step.places and sign * step.value > 0]
        return sorted(named, key=lambda step: -sign * step.value)[:count]


def waterfall(
    evidence: Evidence,
    phrases: Mapping[str, Sequence[str]],
    i: int,
    one: int,
    rival: int,
    owns: np.ndarray | None = None,
) -> Waterfall:
    """The margin of image ``i`` between the classes ``one`` and ``rival``.

    Args:
        phrases: class name -> the symptoms that it reads.
        owns: [K, k] which of them it has, where classes read those of others; None: all.
    """
    values: dict[str, float] = {}
    places: dict[str, tuple[tuple[int, int], ...]] = {}
    names = list(phrases)
    for c, sign in ((one, 1), (rival, -1)):
        for j, phrase in enumerate(phrases[names[c]]):
            value = sign * float(evidence.symptom[i, c, j])
            values[phrase] = values.get(phrase, 0.0) + value
            if owns is None:
                places[phrase] = (*places.get(phrase, ()), (c, j))
            else:
                places[phrase] = tuple((int(own), j) for own in np.flatnonzero(owns[:, j]))
    steps = [Step(phrase, value, places[phrase]) for phrase, value in values.items()]
    steps.sort(key=lambda step: -abs(step.value))
    if evidence.own.any():
        steps.append(Step(OWN, float(evidence.own[i, one] - evidence.own[i, rival])))
    return Waterfall(one, rival, float(evidence.baseline[one] - evidence.baseline[rival]), steps)
