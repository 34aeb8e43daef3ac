"""The statistics behind the tables: pure functions of arrays, every draw from a seeded generator.

A run is given as ``Predictions``. Test images are what is sampled: a bootstrap draws images with
replacement and takes the predictions of all runs on a drawn image together, because ten predictions
on one image are not ten images. Where several images are of one patient, patients are drawn in
place of images, each with all of its images, because they are not independent either. McNemar's
test, DeLong's test and the binomial width know no patients: they count every image as independent,
so where patients repeat, they are too sure.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from results.metrics import metrics_of, weighted_metrics
from results.predictions import Predictions

LEVEL = 0.95
RESAMPLES = 2000
# Weights of one chunk of resamples; keeps a large test split within about 100 MB.
CHUNK_ENTRIES = 4_000_000


Groups = Sequence[Sequence[Predictions]]  # backbones of seeds, on the same images in one order
Share = tuple[np.ndarray, np.ndarray]  # numerator and denominator of each image


class WithPatients(Protocol):
    """Predictions of one class or of several findings an image."""

    @property
    def groups(self) -> np.ndarray: ...  # [n] str, as of ``Predictions``


# Bootstrap over test images


def resamples(
    n: int, times: int = RESAMPLES, seed: int = 0, clusters: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield, in chunks of rows, how often each of n images was drawn: ``[times, n]`` in all.

    The same arguments give the same draws, so two methods meet the same images.

    Args:
        clusters: ``[n]`` int from 0 on, equal for images that are drawn together; None: each image
            by itself. As many clusters are drawn as there are, so the number of images varies.
    """
    generator = np.random.default_rng(seed)
    units = n if clusters is None else int(clusters.max()) + 1
    step = max(1, min(times, CHUNK_ENTRIES // max(n, 1)))
    for start in range(0, times, step):
        rows = min(step, times - start)
        drawn = generator.integers(0, units, size=(rows, units)) + units * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
        yield (counts if clusters is None else counts[:, clusters]).astype(float)


def clusters_of(groups: Sequence[Sequence[WithPatients]]) -> np.ndarray | None:
    """Which images are of one patient: ``[n]`` int from 0 on, in the order of first appearance.

    An image of an unknown patient is a cluster by itself. None where no patient has two images, or
    none is known; a run that does not know them takes those of another run on the same images.
    """
    known = (run.groups for group in groups for run in group if len(run.groups))
    patients = next(known, None)
    if patients is None:
        return None
    numbers: dict[object, int] = {}
    keys = [patient or i for i, patient in enumerate(patients.tolist())]
    clusters = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    return clusters if len(numbers) < len(clusters) else None


def bootstrap_means(
    groups: Groups,
    names: Sequence[str],
    times: int = RESAMPLES,
    seed: int = 0,
    clusters: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Bootstrap the estimate of a table: the mean over groups of the mean over a group's runs.

    Args:
        groups: runs on the same images in the same order (``predictions.align``).
        names: of metrics.
        clusters: images that are drawn together; by default those of one patient.

    Returns:
        Name -> ``[times]`` values, one for each resample of the images.
    """
    n = len(groups[0][0])
    clusters = clusters_of(groups) if clusters is None else clusters
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for weights in resamples(n, times, seed, clusters):
        means: dict[str, np.ndarray] = {name: np.zeros(len(weights)) for name in names}
        for group in groups:
            for run in group:
                for name, value in weighted_metrics(run, weights, names).items():
                    means[name] = means[name] + value / (len(group) * len(groups))
        for name in names:
            chunks[name].append(means[name])
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def bootstrap_shares(
    groups: Sequence[Sequence[Share]],
    clusters: np.ndarray | None = None,
    times: int = RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Bootstrap the mean over groups of the mean over a group's shares: ``[times]``.

    Args:
        groups: (numerator, denominator), ``[n]`` each, of the same images in one order; a share is
            the sum of the one over the sum of the other. NaN where a denominator is 0.
        clusters: as ``clusters_of`` gives.
    """
    chunks = []
    for weights in resamples(len(groups[0][0][0]), times, seed, clusters):
        means = np.zeros(len(weights))
        for group in groups:
            for numerator, denominator in group:
                part, whole = weights @ numerator, weights @ denominator
                share = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
                means += share / (len(group) * len(groups))
        chunks.append(means)
    return np.concatenate(chunks)


def interval(samples: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of bootstrap samples: (low, high); NaN where no sample is defined."""
    if np.isnan(samples).all():
        return float("nan"), float("nan")
    tail = (1 - level) / 2 * 100
    low, high = np.nanpercentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_difference(
    groups_a: Groups,
    groups_b: Groups,
    names: Sequence[str],
    times: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, tuple[float, float, float]]:
    """Paired bootstrap of estimate A minus estimate B: name -> (difference, low, high).

    Both sides are computed on the same resampled images. Groups as in ``bootstrap_means``.
    """
    clusters = clusters_of([*groups_a, *groups_b])
    samples_a = bootstrap_means(groups_a, names, times, seed, clusters)
    samples_b = bootstrap_means(groups_b, names, times, seed, clusters)
    return {
        name: (
            group_mean(groups_a, name) - group_mean(groups_b, name),
            *interval(samples_a[name] - samples_b[name], level),
        )
        for name in names
    }


def group_mean(groups: Groups, name: str) -> float:
    """The mean over groups of the mean over a group's runs, on all images."""
    return float(np.mean([np.mean([metrics_of(run, (name,))[name] for run in g]) for g in groups]))


def wilson_interval(share: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share of n cases; also of none and of all, where a bootstrap fails."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(share * n, n, alpha=1 - level, method="wilson")
    return float(low), float(high)


def within_noise(low: float, high: float) -> bool:
    """Whether the interval of a difference contains 0."""
    return low <= 0 <= high


def binomial_half_width(share: float, n: int, level: float = LEVEL) -> float:
    """Half the width of the normal interval of a share of n images."""
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2) * np.sqrt(share * (1 - share) / n))


# Tests


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[int, int, float]:
    """McNemar's exact test of two runs on the same images: (only A correct, only B correct, p)."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    result = test([[both, only_a], [only_b, neither]], exact=True)
    return only_a, only_b, min(1.0, float(result.pvalue))


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's correction, in the order given; NaN (no test) stays NaN and is not counted."""
    from statsmodels.stats.multitest import multipletests

    raw = np.asarray(p_values, dtype=float)
    corrected = raw.copy()
    tested = ~np.isnan(raw)
    if tested.any():
        corrected[tested] = multipletests(raw[tested], method="holm")[1]
    return corrected


def delong(positive: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Areas under ROC curves on the same images, and their covariance.

    Args:
        positive: ``[n]`` bool.
        scores: ``[n_curves, n]``, higher for positive.

    Returns:
        areas ``[n_curves]``, covariance ``[n_curves, n_curves]`` (NaN with fewer than two images of
        a class).

    Raises:
        ValueError: there are no positive or no negative images.

    Source: DeLong et al., Biometrics 1988, 44:837-845; by midranks as in Sun and Xu, IEEE Signal
    Processing Letters 2014, 21:1389-1393. Written here because the Python packages that offer it
    are unmaintained, pin old build tools or return areas above one.
    """
    from scipy.stats import rankdata

    positive = np.asarray(positive, bool)
    scores = np.atleast_2d(np.asarray(scores, dtype=float))
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise ValueError("an area under the ROC curve needs images of both classes")
    overall = rankdata(scores, axis=1)
    # An image's rank among all, less its rank within its class, counts the other class below it.
    wins = (overall[:, positive] - rankdata(scores[:, positive], axis=1)) / n_negative
    losses = (overall[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_positive
    areas = wins.mean(axis=1)
    if min(n_positive, n_negative) < 2:
        return areas, np.full((len(areas), len(areas)), np.nan)
    covariance = np.atleast_2d(np.cov(wins)) / n_positive
    return areas, covariance + np.atleast_2d(np.cov(losses)) / n_negative


def delong_interval(
    positive: ArrayLike, scores: ArrayLike, level: float = LEVEL
) -> tuple[float, float, float]:
    """Area under one ROC curve with DeLong's interval, cut off at 0 and 1: (area, low, high)."""
    from scipy.stats import norm

    areas, covariance = delong(positive, scores)
    margin = norm.ppf((1 + level) / 2) * np.sqrt(covariance[0, 0])
    area = float(areas[0])
    return area, float(np.maximum(area - margin, 0.0)), float(np.minimum(area + margin, 1.0))


def delong_test(
    positive: ArrayLike, scores_a: np.ndarray, scores_b: np.ndarray
) -> tuple[float, float]:
    """DeLong's paired test of two ROC curves on the same images: (area A - area B, p).

    p is 1 for curves that never differ, and NaN where a difference has no variance.
    """
    from scipy.stats import norm

    areas, covariance = delong(positive, np.stack([scores_a, scores_b]))
    difference = float(areas[0] - areas[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if np.array_equal(scores_a, scores_b):
        return 0.0, 1.0
    # Rounding leaves about 1e-17 where the variance is truly zero.
    if not variance > 1e-15:
        return difference, 1.0 if abs(difference) < 1e-12 else float("nan")
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))
