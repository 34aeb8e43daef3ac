"""Figures of a report that no table of results has: calibration, and rates with intervals."""

import csv

import numpy as np
from sklearn.metrics import confusion_matrix
from statsmodels.stats.proportion import proportion_confint

from results import statistics
from results.tables import Figure, PValue, Table, aligned_groups

BINS = 10  # of equal width, for reliability and its error


def _confidence(runs):
    confidence = np.concatenate([run.probabilities.max(axis=1) for run in runs])
    return confidence, np.concatenate([run.right for run in runs]).astype(float)


def reliability(runs):
    """Pictures, mean confidence and accuracy in each of ``BINS`` bins of confidence; NaN if empty.

    Args:
        runs: Predictions, pooled.
    """
    confidence, right = _confidence(runs)
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return {
            "count": count,
            "confidence": np.bincount(place, confidence, BINS) / count,
            "accuracy": np.bincount(place, right, BINS) / count,
        }


def calibration_error(run):
    """Expected calibration error of one run: mean |accuracy - confidence| over its pictures' bins.

    Source: Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599, equation 3.
    """
    bins = reliability([run])
    filled = bins["count"] > 0
    gap = np.abs(bins["accuracy"] - bins["confidence"])[filled]
    return float(np.average(gap, weights=bins["count"][filled]))


def confusion(runs):
    """[n_cls, n_cls] pictures by true (rows) and predicted class, mean over runs."""
    labels = range(len(runs[0].classnames))
    return np.mean([confusion_matrix(r.labels, r.predicted, labels=labels) for r in runs], axis=0)


def rate_table(title, methods):
    """Sensitivity and specificity of each class with Wilson's 95 % interval.

    Args:
        methods: name -> list of runs' Predictions on the same pictures.
    """
    classnames = next(iter(methods.values()))[0].classnames
    headers = ["method"]
    for name in classnames:
        headers += [f"{name} sensitivity", f"{name} specificity"]
    table = Table(title, headers, [])
    for name, runs in methods.items():
        matrix, cells = confusion(runs), []
        for c in range(len(classnames)):
            positives = matrix[c].sum()
            negatives = matrix.sum() - positives
            false_alarms = matrix[:, c].sum() - matrix[c, c]
            cells += [
                _rate(matrix[c, c], positives),
                _rate(negatives - false_alarms, negatives),
            ]
        table.rows.append([name, *cells])
    table.notes.append(
        "[low, high]: Wilson's 95 % interval for the mean rate over runs, on as many pictures as "
        "one run is tested on; several runs on the same pictures do not narrow it"
    )
    return table


def _rate(part, whole):
    if not whole:
        return None
    low, high = proportion_confint(part, whole, method="wilson")
    return Figure(float(part / whole), None, float(low), float(high))


def calibration_table(title, methods):
    """Expected calibration error and mean confidence beside accuracy."""
    table = Table(title, ["method", "ECE", "mean confidence", "ACC"], [])
    for name, runs in methods.items():
        errors = [calibration_error(run) for run in runs]
        deviation = float(np.std(errors)) if len(errors) > 1 else None
        confidence, right = _confidence(runs)
        table.rows.append(
            [
                name,
                Figure(float(np.mean(errors)), deviation),
                Figure(float(confidence.mean())),
                Figure(float(right.mean())),
            ]
        )
    table.notes.append(
        f"ECE: mean gap between confidence and accuracy over {BINS} bins of equal width; mean "
        "(deviation, ddof 0) over runs"
    )
    return table


def significance_table(title, first, others, times=statistics.RESAMPLES):
    """One method against each other: paired bootstrap of the difference, and McNemar's tests.

    Args:
        first, others: ``Method`` rows of one task.

    Returns:
        ``Table``, or None if there is nothing to compare.
    """
    headers = ["against", "ACC, points", "F1, points", "McNemar: pairs that differ", "least p"]
    table = Table(title, headers, [])
    tests = []
    for other in others:
        try:
            pair = _aligned(first, other)
        except ValueError as error:
            table.notes.append(f"{other.label}: left out ({error})")
            continue
        names = ("accuracy", "macro_f1")
        differences = statistics.bootstrap_difference(*pair, names, times)
        cells = [Figure(d, None, low, high, signed=True) for d, low, high in differences.values()]
        own = [
            statistics.mcnemar(a.right, b.right)[2]
            for group_a, group_b in zip(*pair, strict=True)
            for a, b in zip(group_a, _repeated(group_b, len(group_a)), strict=False)
        ]
        tests.append(own)
        table.rows.append([other.label, *cells])
    if not table.rows:
        return None
    corrected = statistics.holm([p for own in tests for p in own]).tolist()
    for row, own in zip(table.rows, tests, strict=True):
        mine, corrected = corrected[: len(own)], corrected[len(own) :]
        row += [f"{sum(p < 0.05 for p in mine)} of {len(mine)}", PValue(min(mine))]
    table.notes += [
        f"{first.label} minus the other, in points; [low, high]: 95 % paired bootstrap over the "
        "test pictures; an interval that holds 0 is within their noise",
        "McNemar's exact test for each pair of runs with one backbone; p values by Holm's "
        f"correction over all {sum(map(len, tests))} tests of this table",
    ]
    return table


def _aligned(first, other):
    """Two methods' runs by backbone, for the backbones of both, in one order of pictures."""
    sides = [method.prediction_groups() for method in (first, other)]
    shared = [backbone for backbone in sides[0] if backbone in sides[1]]
    if not shared:
        raise ValueError("no backbone in common")
    groups = aligned_groups(
        {(side, backbone): sides[side][backbone] for side in (0, 1) for backbone in shared}
    )
    return [[groups[side, backbone] for backbone in shared] for side in (0, 1)]


def _repeated(runs, times):
    """A method without seeds has one run to set against all of another's."""
    return runs * times if len(runs) == 1 else runs


def read_history(path):
    """A run's history.csv as {column: array}; NaN where a cell is empty. None if there is none."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in ("epoch", "loss", "val_accuracy")
        } if rows else None  # fmt: skip
    except (OSError, KeyError, ValueError):
        return None
