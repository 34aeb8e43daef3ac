"""The statistics behind the tables: pure functions of arrays, every draw from a seeded generator.

A run is given as ``Predictions``. Test pictures are what is sampled: a bootstrap draws pictures
with replacement and takes all runs' answers to a drawn picture together, because ten runs that
answer one picture are not ten pictures. Several pictures of one patient count as independent, so
where patients repeat the intervals are too narrow rather than too wide.
"""

from dataclasses import dataclass, field, replace

import numpy as np

METRICS = ("accuracy", "macro_f1", "auroc", "balanced_accuracy")
LEVEL = 0.95
RESAMPLES = 2000
# Weights of one chunk of resamples; keeps a large test split within about 100 MB.
CHUNK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class Predictions:
    """One run's answers on its test pictures, in the order of ``pictures``."""

    pictures: np.ndarray  # [n] str
    labels: np.ndarray  # [n] int, an index into classnames
    predicted: np.ndarray  # [n] int
    probabilities: np.ndarray  # [n, n_cls] float
    classnames: tuple
    subtypes: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))  # [n] str

    def __len__(self):
        return len(self.pictures)

    @property
    def right(self):
        return self.labels == self.predicted

    def take(self, index):
        """The same run on some of its pictures."""
        return replace(
            self,
            pictures=self.pictures[index],
            labels=self.labels[index],
            predicted=self.predicted[index],
            probabilities=self.probabilities[index],
            subtypes=self.subtypes[index] if len(self.subtypes) else self.subtypes,
        )


def align(predictions):
    """Put runs in one order of pictures.

    Raises:
        ValueError: if they did not answer the same pictures with the same labels.
    """
    aligned = [run.take(np.argsort(run.pictures, kind="stable")) for run in predictions]
    first = aligned[0]
    for run in aligned[1:]:
        if not np.array_equal(run.pictures, first.pictures):
            differ = len(set(run.pictures) ^ set(first.pictures))
            raise ValueError(f"{differ} test pictures are in only one of the two runs")
        if run.classnames != first.classnames or not np.array_equal(run.labels, first.labels):
            raise ValueError("the same test pictures have other labels in the two runs")
    return aligned


# Metrics, for one weighting of the pictures or many at once


def weighted_metrics(run, weights, names=METRICS):
    """Metrics of one run under many weightings of its pictures.

    Args:
        run: Predictions of n pictures.
        weights: [times, n], how often each picture counts; ones give the plain metrics.
        names: which of METRICS.

    Returns:
        Name -> [times] fractions. Macro F1, balanced accuracy and AUROC are over the classes that
        have a picture in the weighting (for F1 as Dassl's evaluator does); AUROC of more than two
        classes is the mean of one against the rest. NaN where nothing is defined.
    """
    n_cls = len(run.classnames)
    weights = np.asarray(weights, dtype=float)
    classes = np.arange(n_cls)
    is_label = (run.labels[:, None] == classes).astype(float)  # [n, n_cls]
    is_predicted = (run.predicted[:, None] == classes).astype(float)
    truly = weights @ is_label  # [times, n_cls]
    hits = weights @ (is_label * is_predicted)
    present = truly > 0

    values = {}
    if "accuracy" in names:
        values["accuracy"] = hits.sum(1) / weights.sum(1)
    if "macro_f1" in names:
        said = weights @ is_predicted
        values["macro_f1"] = _mean_where(present, 2 * hits, truly + said)
    if "balanced_accuracy" in names:
        values["balanced_accuracy"] = _mean_where(present, hits, truly)
    if "auroc" in names:
        # Two classes mirror each other: one area says it all.
        of = [1] if n_cls == 2 else range(n_cls)
        areas = np.stack(
            [_weighted_auc(run.labels == c, run.probabilities[:, c], weights) for c in of]
        )
        defined = ~np.isnan(areas)
        counted = defined.sum(0)
        total = np.where(defined, areas, 0).sum(0)
        values["auroc"] = np.where(counted > 0, total / np.maximum(counted, 1), np.nan)
    return values


def metrics(run, names=METRICS):
    """Name -> fraction, for the run's pictures counted once each."""
    values = weighted_metrics(run, np.ones((1, len(run))), names)
    return {name: float(value[0]) for name, value in values.items()}


def _mean_where(present, numerator, denominator):
    share = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return (share * present).sum(1) / present.sum(1)


def _weighted_auc(positive, scores, weights):
    """Weighted chance that a positive outscores a negative, ties counting half: [times]."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # first of each tie
    weights = weights[:, order]
    positives = np.add.reduceat(weights * positive[order], starts, axis=1)
    negatives = np.add.reduceat(weights * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(1)
    pairs = positives.sum(1) * negatives.sum(1)
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def majority_predictions(class_counts, trained="train", tested="test"):
    """The rule that always answers the most frequent training class, as a run.

    Args:
        class_counts: {"train": {classname: pictures}, "test": {...}}.
    """
    classnames = tuple(class_counts[trained])
    majority = max(classnames, key=class_counts[trained].get)
    counts = [class_counts[tested].get(name, 0) for name in classnames]
    labels = np.repeat(np.arange(len(classnames)), counts)
    return Predictions(
        pictures=np.array([f"{i:09d}" for i in range(len(labels))]),
        labels=labels,
        predicted=np.full(len(labels), classnames.index(majority)),
        probabilities=np.tile(
            np.eye(len(classnames))[classnames.index(majority)], (len(labels), 1)
        ),
        classnames=classnames,
    )


# Bootstrap over test pictures


def resamples(n, times=RESAMPLES, seed=0):
    """Yield, in chunks of rows, how often each of n pictures was drawn: [times, n] in all.

    The same (n, times, seed) gives the same draws, so two methods meet the same pictures.
    """
    generator = np.random.default_rng(seed)
    step = max(1, min(times, CHUNK_ENTRIES // max(n, 1)))
    for start in range(0, times, step):
        rows = min(step, times - start)
        drawn = generator.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(float)


def bootstrap_means(groups, names=METRICS, times=RESAMPLES, seed=0):
    """Bootstrap a table's figure: the mean over groups of the mean over a group's runs.

    Args:
        groups: list of lists of Predictions (backbones of seeds) on the same pictures in the same
            order (``align``).

    Returns:
        Name -> [times] values of the figure, one a resample of the pictures.
    """
    n = len(groups[0][0])
    chunks = {name: [] for name in names}
    for weights in resamples(n, times, seed):
        means = {name: 0.0 for name in names}
        for group in groups:
            for run in group:
                for name, value in weighted_metrics(run, weights, names).items():
                    means[name] = means[name] + value / (len(group) * len(groups))
        for name in names:
            chunks[name].append(means[name])
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def interval(samples, level=LEVEL):
    """Percentile interval of bootstrap samples: (low, high)."""
    tail = (1 - level) / 2 * 100
    low, high = np.nanpercentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def bootstrap_difference(groups_a, groups_b, names=METRICS, times=RESAMPLES, seed=0, level=LEVEL):
    """Paired bootstrap of figure A minus figure B: name -> (difference, low, high).

    Both sides are read on the same resampled pictures. ``groups`` as in ``bootstrap_means``.
    """
    samples_a = bootstrap_means(groups_a, names, times, seed)
    samples_b = bootstrap_means(groups_b, names, times, seed)
    return {
        name: (
            group_mean(groups_a, name) - group_mean(groups_b, name),
            *interval(samples_a[name] - samples_b[name], level),
        )
        for name in names
    }


def group_mean(groups, name):
    """The mean over groups of the mean over a group's runs, on all pictures."""
    return float(np.mean([np.mean([metrics(run, (name,))[name] for run in g]) for g in groups]))


def within_noise(low, high):
    """Whether an interval of a difference holds zero."""
    return low <= 0 <= high


def binomial_half_width(share, n, level=LEVEL):
    """Half the width of the normal interval of a share of n pictures."""
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2) * np.sqrt(share * (1 - share) / n))


# Tests


def mcnemar(right_a, right_b):
    """McNemar's exact test of two runs on the same pictures: (only A right, only B right, p)."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    right_a, right_b = np.asarray(right_a, bool), np.asarray(right_b, bool)
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    both, neither = int((right_a & right_b).sum()), int((~right_a & ~right_b).sum())
    result = test([[both, only_a], [only_b, neither]], exact=True)
    return only_a, only_b, min(1.0, float(result.pvalue))


def holm(p_values):
    """Holm's correction, in the order given; NaN (no test) stays NaN and is not counted."""
    from statsmodels.stats.multitest import multipletests

    p_values = np.asarray(p_values, dtype=float)
    corrected = p_values.copy()
    tested = ~np.isnan(p_values)
    if tested.any():
        corrected[tested] = multipletests(p_values[tested], method="holm")[1]
    return corrected


def delong(positive, scores):
    """Areas under ROC curves read on the same pictures, and their covariance.

    Args:
        positive: [n] bool.
        scores: [n_curves, n], higher for positive.

    Returns:
        areas [n_curves], covariance [n_curves, n_curves] (NaN with fewer than two pictures of a
        class).

    Source: DeLong et al., Biometrics 1988, 44:837-845; by midranks as in Sun and Xu, IEEE Signal
    Processing Letters 2014, 21:1389-1393. Written here because the Python packages that offer it
    are unmaintained, pin old build tools or return areas above one.
    """
    from scipy.stats import rankdata

    positive = np.asarray(positive, bool)
    scores = np.atleast_2d(np.asarray(scores, dtype=float))
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        raise ValueError("an area under the ROC curve needs pictures of both classes")
    overall = rankdata(scores, axis=1)
    # A picture's rank among all, less its rank within its class, counts the other class below it.
    wins = (overall[:, positive] - rankdata(scores[:, positive], axis=1)) / n_negative
    losses = (overall[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / n_positive
    areas = wins.mean(axis=1)
    if min(n_positive, n_negative) < 2:
        return areas, np.full((len(areas), len(areas)), np.nan)
    covariance = np.atleast_2d(np.cov(wins)) / n_positive
    return areas, covariance + np.atleast_2d(np.cov(losses)) / n_negative


def delong_interval(positive, scores, level=LEVEL):
    """Area under one ROC curve with DeLong's interval, cut off at 0 and 1: (area, low, high)."""
    from scipy.stats import norm

    areas, covariance = delong(positive, scores)
    margin = norm.ppf((1 + level) / 2) * np.sqrt(covariance[0, 0])
    area = float(areas[0])
    return area, float(np.maximum(area - margin, 0.0)), float(np.minimum(area + margin, 1.0))


def delong_test(positive, scores_a, scores_b):
    """DeLong's paired test of two ROC curves on the same pictures: (area A - area B, p).

    p is 1 for curves that never differ and NaN where a difference has no variance to judge it by.
    """
    from scipy.stats import norm

    areas, covariance = delong(positive, [scores_a, scores_b])
    difference = float(areas[0] - areas[1])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if np.array_equal(scores_a, scores_b):
        return 0.0, 1.0
    # Rounding leaves about 1e-17 where the variance is truly zero.
    if not variance > 1e-15:
        return difference, 1.0 if abs(difference) < 1e-12 else float("nan")
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))
