"""Confidence that can be read as a frequency: how far it is from one, and the temperature for it.

The temperature is fitted on validation images. The measures are of probabilities ``[n, n_cls]`` and
labels ``[n]``.
"""

from dataclasses import dataclass

import numpy as np

LARGEST = 20.0  # temperatures between its inverse and it
SMALLEST_P = 1e-12  # a probability of 0 has no logarithm
BINS = 10  # of equal width, for reliability and its error


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature, and on how many validation images it was fitted."""

    temperature: float
    images: int

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [..., n_cls]; the order of the classes stays."""
        return tempered(probabilities, self.temperature)


def calibrate(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit a temperature to the probabilities [n, n_cls] of validation images with labels [n].

    A logarithm of a softmax's probability is the logit up to a constant, so this is temperature
    scaling of a single run. Of an ensemble it scales the mean probability, as Rahaman and Thiery
    (NeurIPS 2021, https://arxiv.org/abs/2007.08792) recommend.
    """
    temperature = fit_temperature(np.log(np.maximum(probabilities, SMALLEST_P)), labels)
    return Calibration(temperature, len(labels))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fit the temperature that minimises the cross-entropy on validation images.

    Args:
        logits: ``[n, n_cls]``.
        labels: ``[n]``, integers.

    Returns:
        The temperature, between 1 / ``LARGEST`` and ``LARGEST``. Divide logits by it.

    Source: Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    rows = np.arange(len(labels))

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - scaled[rows, labels]).mean())

    limit = float(np.log(LARGEST))
    found = minimize_scalar(cross_entropy, bounds=(-limit, limit), method="bounded")
    return float(np.exp(found.x))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities [..., n_cls] whose logits are divided by ``temperature``."""
    from scipy.special import softmax

    return softmax(np.log(np.maximum(probabilities, SMALLEST_P)) / temperature, axis=-1)


def reliability_bins(confidence: np.ndarray, correct: np.ndarray) -> dict[str, np.ndarray]:
    """Images, mean confidence and accuracy in each of ``BINS`` bins of confidence; NaN if empty.

    A bin holds its lower bound, the last one both of its bounds.

    Args:
        confidence: ``[n]`` probability of the predicted class.
        correct: ``[n]``, 1 where the prediction is correct.
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return {
            "count": count,
            "confidence": np.bincount(place, confidence, BINS) / count,
            "accuracy": np.bincount(place, correct, BINS) / count,
        }


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Mean |accuracy - confidence| over the images' bins; arguments of ``reliability_bins``.

    Source: Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    bins = reliability_bins(confidence, correct)
    filled = bins["count"] > 0
    gap = np.abs(bins["accuracy"] - bins["confidence"])[filled]
    return float(np.average(gap, weights=bins["count"][filled]))


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over images of the squared distance to the true class, summed over the classes: 0 to 2.

    Source: Brier, Monthly Weather Review 1950, 78:1-3.
    """
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over images of -log p(true class), by the natural logarithm."""
    likelihood = np.maximum(probabilities[np.arange(len(labels)), labels], SMALLEST_P)
    return float(-np.log(likelihood).mean())
