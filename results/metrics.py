"""The metrics: each is defined here once, for plain predictions and for the bootstrap's weights.

To add one, write its function of ``Scored`` and add a ``Metric`` to ``METRICS``: the log of a run,
results.json, the tables, the report and ``parse_results.py --metrics`` then know it.

A class that no scored image belongs to does not enter a mean over classes. This is what
scikit-learn computes with ``labels=np.unique(y_true)``, and what Dassl's evaluator prints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from results.predictions import Predictions


class Scored:
    """Predictions under many weightings of their images, and the sums that metrics share.

    Args:
        run: n images.
        weights: ``[times, n]``, how often each image counts; ones give the plain metrics.
    """

    def __init__(self, run: Predictions, weights: np.ndarray) -> None:
        self.run = run
        self.weights = np.asarray(weights, dtype=float)
        classes = np.arange(len(run.classnames))
        self._is_label = (run.labels[:, None] == classes).astype(float)  # [n, n_cls]
        self._is_predicted = (run.predicted[:, None] == classes).astype(float)

    @cached_property
    def label_counts(self) -> np.ndarray:
        """``[times, n_cls]`` images of each class."""
        return self.weights @ self._is_label

    @cached_property
    def predicted_counts(self) -> np.ndarray:
        """``[times, n_cls]`` images predicted to be of each class."""
        return self.weights @ self._is_predicted

    @cached_property
    def hits(self) -> np.ndarray:
        """``[times, n_cls]`` images of each class that are predicted to be of it."""
        return self.weights @ (self._is_label * self._is_predicted)

    def mean_over_present(self, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
        """``[times]`` mean of a ratio over the classes that have an image."""
        share = np.divide(
            numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0
        )
        present = self.label_counts > 0
        return (share * present).sum(1) / present.sum(1)

    def area(self, label: int) -> np.ndarray:
        """``[times]`` area under the ROC curve of one class against the rest; NaN if undefined.

        It is the chance that an image of the class scores higher than another; ties count half.
        """
        return weighted_area(
            self.run.labels == label, self.run.probabilities[:, label], self.weights
        )


def weighted_area(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``[times]`` areas under a ROC curve under many weightings of its images; NaN if undefined.

    Args:
        positive: ``[n]`` bool. scores: ``[n]``. weights: ``[times, n]``.
    """
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # first of each tie
    weights = weights[:, order]
    positives = np.add.reduceat(weights * positive[order], starts, axis=1)
    negatives = np.add.reduceat(weights * ~positive[order], starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    wins = (positives * (below + negatives / 2)).sum(1)
    pairs = positives.sum(1) * negatives.sum(1)
    return np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def accuracy(scored: Scored) -> np.ndarray:
    """Share of images that are predicted correctly."""
    return scored.hits.sum(1) / scored.weights.sum(1)


def macro_f1(scored: Scored) -> np.ndarray:
    """Mean F1 score over the classes that have an image."""
    return scored.mean_over_present(2 * scored.hits, scored.label_counts + scored.predicted_counts)


def balanced_accuracy(scored: Scored) -> np.ndarray:
    """Mean recall over the classes that have an image."""
    return scored.mean_over_present(scored.hits, scored.label_counts)


def auroc(scored: Scored) -> np.ndarray:
    """Area under the ROC curve; of more than two classes, the mean of one against the rest.

    Of two classes it is that of the positive class, else of the second; both classes have the same
    area. With more classes the mean is over those that have an image. NaN where no class has both
    an image of it and an image of another.
    """
    run = scored.run
    if len(run.classnames) == 2:
        return scored.area(positive_label(run))
    areas = np.stack([scored.area(label) for label in range(len(run.classnames))])
    defined = ~np.isnan(areas)
    total, count = np.where(defined, areas, 0).sum(0), defined.sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def positive_label(run: Predictions) -> int:
    """Index of the positive class; where none is named, the second class."""
    return run.classnames.index(run.positive) if run.positive else 1


@dataclass(frozen=True)
class Metric:
    """A metric and everything that the rest of the program says of it.

    Attributes:
        name: its key in results.json.
        option: its name on a command line.
        heading: of its column.
        title: in a sentence.
        compute: ``Scored`` -> ``[times]`` fractions, NaN where it is not defined.
        log: its lines in a log, of its ``name``, of ``percent`` and of what is ``left`` to 100.
        by_default: whether tables show it unless told otherwise.
    """

    name: str
    option: str
    heading: str
    title: str
    compute: Callable[[Scored], np.ndarray]
    log: str = "* {name}: {percent:.4f}%"
    by_default: bool = False


_ALL = (
    Metric(
        "accuracy",
        "acc",
        "ACC",
        "accuracy",
        accuracy,
        log="* {name}: {percent:.4f}%\n* error: {left:.4f}%",
        by_default=True,
    ),
    Metric("macro_f1", "f1", "F1", "macro F1", macro_f1, by_default=True),
    Metric("balanced_accuracy", "bacc", "BACC", "balanced accuracy", balanced_accuracy),
    Metric("auroc", "auroc", "AUROC", "area under the ROC curve", auroc),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def default_metrics() -> tuple[str, ...]:
    """Names of the metrics that tables show unless told otherwise."""
    return tuple(name for name, metric in METRICS.items() if metric.by_default)


def heading(name: str) -> str:
    """The heading of a metric's column."""
    return METRICS[name].heading


def weighted_metrics(
    run: Predictions, weights: np.ndarray, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Metrics of one run under many weightings of its images: name -> ``[times]`` fractions.

    Args:
        weights: ``[times, n]``. names: which of ``METRICS``; all by default.
    """
    scored = Scored(run, weights)
    return {name: METRICS[name].compute(scored) for name in names or METRICS}


def metrics_of(run: Predictions, names: Sequence[str] | None = None) -> dict[str, float]:
    """Metric name -> fraction, each image counted once; NaN where a metric is not defined."""
    values = weighted_metrics(run, np.ones((1, len(run))), names)
    return {name: float(value[0]) for name, value in values.items()}


def figures(run: Predictions) -> dict:
    """What results.json says of predictions: every metric, and the rates of each class.

    None where a metric is not defined.
    """
    scored = Scored(run, np.ones((1, len(run))))
    values = {name: float(metric.compute(scored)[0]) for name, metric in METRICS.items()}
    per_class = {}
    for c, name in enumerate(run.classnames):
        hits, positives = scored.hits[0, c], scored.label_counts[0, c]
        negatives, false_alarms = len(run) - positives, scored.predicted_counts[0, c] - hits
        per_class[name] = {
            "sensitivity": float(hits / positives) if positives else None,
            "specificity": float((negatives - false_alarms) / negatives) if negatives else None,
        }
    plain = {name: None if np.isnan(value) else value for name, value in values.items()}
    return {**plain, "per_class": per_class}


def log_lines(run: Predictions, found: dict) -> list[str]:
    """The lines that readers of Dassl's logs expect, with more digits, and the rates of each class.

    Args:
        found: what ``figures`` returned for ``run``.
    """
    lines = ["=> result", f"* total: {len(run):,}", f"* correct: {int(run.correct.sum()):,}"]
    for name, metric in METRICS.items():
        if found[name] is not None:
            percent = 100 * found[name]
            lines += metric.log.format(name=name, percent=percent, left=100 - percent).split("\n")
    for name, rates in found["per_class"].items():
        shown = [f"{rate} {100 * value:.4f}%" for rate, value in rates.items() if value is not None]
        positive = " (positive class)" if name == run.positive else ""
        lines.append(f"* {name}{positive}: {', '.join(shown)}")
    return lines
