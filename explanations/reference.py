"""What the training images show on average: the zero from which evidence is measured.

CLIP's cosines to any one text lie within a narrow band above zero, so a similarity, or what it
adds to a logit, says more about the phrase than about the image. Its distance from the mean over
the training images says something about the image.
"""

import sys
from dataclasses import dataclass

import numpy as np

from core.errors import InputError
from engine.loading import LoadedRun
from engine.symptom_model import SymptomModel

from .contributions import Contributions, contributions
from .what_if import merge_of


@dataclass(frozen=True)
class Reference:
    """Means over the training images, of a model with K classes of at most k symptoms."""

    similarity: np.ndarray  # [K, k], NaN where a class has fewer symptoms
    deviation: np.ndarray  # [K, k] standard deviation of the similarity, NaN where it is 0
    symptom: np.ndarray  # [K, k] what a symptom adds to its class's logit (``symptom_parts``)
    own: np.ndarray  # [K] what the class's own token adds
    logits: np.ndarray  # [K]

    def standardised(self, similarity: np.ndarray) -> np.ndarray:
        """Similarities [n, K, k] as standard deviations from the training images' mean."""
        return (similarity - self.similarity) / self.deviation


def symptom_parts(
    model: SymptomModel, parts: Contributions, mean_similarity: np.ndarray
) -> np.ndarray:
    """[n, K, k] what each symptom adds to its class's logit, relative to some fixed logit.

    Where the logit is a sum (as with ``prompt`` and ``mean``), it is the contribution itself. The
    logit of ``max`` is a single similarity, and which one it is changes from image to image. Its
    parts are integrated gradients along the straight line from the mean similarities to those of
    the image, in closed form: a symptom has its own change of similarity times the share of the
    line on which it is the nearest. They sum exactly to the logit minus that of the mean
    similarities. For a sum the same rule gives the contribution minus its mean.

    Args:
        mean_similarity: [K, k], the line's start.

    Source: Sundararajan et al., ICML 2017, https://arxiv.org/abs/1703.01365, equation 1.
    """
    if not model.takes_nearest:
        return parts.symptom
    mask = model.mask.cpu().numpy()
    start = np.where(mask, mean_similarity, -1e9)  # padding is never the nearest
    change = np.where(mask, parts.similarity - mean_similarity, 0.0)
    share = _share_as_nearest(np.broadcast_to(start, change.shape), change)
    return float(model.logit_scale.double().exp()) * change * share


def _share_as_nearest(start: np.ndarray, change: np.ndarray) -> np.ndarray:
    """For lines start + t * change [..., k], the share of t in [0, 1] on which each is highest."""
    k = start.shape[-1]
    ahead = start[..., :, None] - start[..., None, :]  # [..., k, k] of line j over line i at t = 0
    gains = change[..., :, None] - change[..., None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        meet = -ahead / gains
    low = np.where(gains > 0, meet, 0.0).max(axis=-1)
    high = np.where(gains < 0, meet, 1.0).min(axis=-1)
    # Parallel lines: the lower one is never highest; of two equal ones the first is.
    later = np.arange(k)[:, None] > np.arange(k)
    beaten = ((gains == 0) & ((ahead < 0) | ((ahead == 0) & later))).any(axis=-1)
    return np.where(beaten, 0.0, np.clip(np.minimum(high, 1) - np.maximum(low, 0), 0, None))


def reference_of(run: LoadedRun) -> Reference | None:
    """The ``Reference`` of a run; None and a line on stderr if its training images are missing."""
    model, _ = merge_of(run)
    try:
        features = run.features("train")
    except InputError as error:
        print(f"similarities are not standardised, and no evidence: {error}", file=sys.stderr)
        return None
    return reference_from(model, contributions(model, features))


def reference_from(model: SymptomModel, parts: Contributions) -> Reference:
    """The ``Reference`` of a model whose training images have ``parts``."""
    similarity = parts.similarity.mean(axis=0)
    deviation = parts.similarity.std(axis=0)
    return Reference(
        similarity=similarity,
        deviation=np.where(deviation > 0, deviation, np.nan),
        symptom=symptom_parts(model, parts, similarity).mean(axis=0),
        own=parts.own.mean(axis=0),
        logits=parts.logits.mean(axis=0),
    )
