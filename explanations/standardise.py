"""Similarities that compare across symptoms: relative to those of the training images.

CLIP's cosines to any one text lie within a narrow band, so a raw similarity says more about the
phrase than about the image. Its distance from the mean over the training images, in standard
deviations, says something about the image.
"""

import sys
from dataclasses import dataclass

import numpy as np

from core.errors import InputError
from engine.loading import LoadedRun

from .contributions import contributions
from .what_if import merge_of


@dataclass(frozen=True)
class Standard:
    """Means and standard deviations over the training images."""

    mean: np.ndarray  # [K, k] similarity, NaN where a class has fewer symptoms
    deviation: np.ndarray  # [K, k]
    contribution: np.ndarray  # [K, k] mean contribution

    def of(self, similarity: np.ndarray) -> np.ndarray:
        """Similarities [n, K, k] as standard deviations from the training images' mean."""
        return (similarity - self.mean) / self.deviation


def standard(run: LoadedRun) -> Standard | None:
    """The ``Standard`` of a run; None and a line on stderr if its training images are missing."""
    model, _ = merge_of(run)
    try:
        features = run.features("train")
    except InputError as error:
        print(f"similarities are raw cosines, not standardised: {error}", file=sys.stderr)
        return None
    parts = contributions(model, features)
    deviation = parts.similarity.std(axis=0)
    return Standard(
        parts.similarity.mean(axis=0),
        np.where(deviation > 0, deviation, np.nan),
        parts.symptom.mean(axis=0),
    )
