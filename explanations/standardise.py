"""Similarities that compare across symptoms: against those of the training pictures.

CLIP's cosines to any text lie within a narrow band of their own, so a raw similarity says more of
the phrase than of the picture. How far it is from the training pictures' mean, in their deviations,
speaks of the picture.
"""

import sys
from dataclasses import dataclass

import numpy as np

from core.errors import InputError

from .contributions import contributions


@dataclass(frozen=True)
class Standard:
    """What is usual over the training pictures."""

    mean: np.ndarray  # [K, k] similarity, NaN where a class has fewer symptoms
    deviation: np.ndarray  # [K, k]
    contribution: np.ndarray  # [K, k] mean contribution

    def of(self, similarity):
        """Similarities [n, K, k] as deviations from the training pictures' mean."""
        return (similarity - self.mean) / self.deviation


def standard(run):
    """The ``Standard`` of a run; None, with a line on stderr, where its pictures are not here."""
    try:
        features = run.features("train")
    except InputError as error:
        print(f"similarities are shown as they are, not standardised: {error}", file=sys.stderr)
        return None
    parts = contributions(run.model, features)
    deviation = parts.similarity.std(axis=0)
    return Standard(
        parts.similarity.mean(axis=0),
        np.where(deviation > 0, deviation, np.nan),
        parts.symptom.mean(axis=0),
    )
