"""Measures of a report that no table of results has: calibration, and rates with intervals."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix
from statsmodels.stats.proportion import proportion_confint

from results import statistics
from results.calibration import BINS, expected_calibration_error, reliability_bins
from results.intervals import independence_note, patients_note
from results.metrics import default_metrics, heading
from results.pairs import Pair, pairs_of, sides
from results.predictions import Predictions
from results.rendering import Estimate, PValue, Table
from results.rows import Method

ByMethod = Mapping[str, Sequence[Predictions]]  # name -> its runs, on the same images


def _confidence(runs: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray]:
    confidence = np.concatenate([run.probabilities.max(axis=1) for run in runs])
    return confidence, np.concatenate([run.correct for run in runs]).astype(float)


def reliability(runs: Sequence[Predictions]) -> dict[str, np.ndarray]:
    """Images, mean confidence and accuracy in each of ``BINS`` bins of confidence; NaN if empty.

    Args:
        runs: pooled.
    """
    return reliability_bins(*_confidence(runs))


def calibration_error(run: Predictions) -> float:
    """Expected calibration error of one run."""
    return expected_calibration_error(*_confidence([run]))


def confusion(runs: Sequence[Predictions]) -> np.ndarray:
    """``[n_cls, n_cls]`` images by true (rows) and predicted class, mean over runs."""
    labels = range(len(runs[0].classnames))
    return np.mean([confusion_matrix(r.labels, r.predicted, labels=labels) for r in runs], axis=0)


def rate_table(title: str, methods: ByMethod) -> Table:
    """Sensitivity and specificity with Wilson's 95 % interval.

    They are those of the positive class where the dataset names one, else those of each class.
    """
    first = next(iter(methods.values()))[0]
    shown = [first.positive] if first.positive else list(first.classnames)
    headers = ["method"]
    for name in shown:
        headers += [f"{name} sensitivity", f"{name} specificity"]
    table = Table(title, headers, [])
    for name, runs in methods.items():
        matrix, cells = confusion(runs), []
        for c in map(first.classnames.index, shown):
            positives = matrix[c].sum()
            negatives = matrix.sum() - positives
            false_alarms = matrix[:, c].sum() - matrix[c, c]
            cells += [
                _rate(matrix[c, c], positives),
                _rate(negatives - false_alarms, negatives),
            ]
        table.rows.append([name, *cells])
    if first.positive:
        table.notes.append(f"positive class: {first.positive}")
    table.notes.append(
        "[low, high]: Wilson's 95 % interval for the mean rate over runs, on as many images as one "
        "run is tested on; several runs on the same images do not narrow it"
    )
    table.notes += independence_note(first)
    return table


def _rate(part: float, whole: float) -> Estimate | None:
    if not whole:
        return None
    low, high = proportion_confint(part, whole, method="wilson")
    return Estimate(float(part / whole), None, float(low), float(high))


def calibration_table(title: str, methods: ByMethod) -> Table:
    """Expected calibration error and mean confidence beside accuracy."""
    table = Table(title, ["method", "ECE", "mean confidence", "ACC"], [])
    for name, runs in methods.items():
        errors = [calibration_error(run) for run in runs]
        deviation = float(np.std(errors)) if len(errors) > 1 else None
        confidence, correct = _confidence(runs)
        table.rows.append(
            [
                name,
                Estimate(float(np.mean(errors)), deviation),
                Estimate(float(confidence.mean())),
                Estimate(float(correct.mean())),
            ]
        )
    table.notes.append(
        f"ECE: mean gap between confidence and accuracy over {BINS} bins of equal width; mean "
        "(deviation, ddof 0) over runs"
    )
    return table


def significance_table(
    title: str, first: Method, others: Sequence[Method], times: int = statistics.RESAMPLES
) -> Table | None:
    """One method against each other: paired bootstrap of the difference, and McNemar's tests.

    Runs are paired by backbone and seed; what has no partner is said in a note.

    Returns:
        ``Table``, or None if there is nothing to compare.
    """
    metrics = default_metrics()
    headers = [f"{heading(metric)}, points" for metric in metrics]
    headers = ["against", *headers, "McNemar: pairs with a significant difference", "smallest p"]
    table = Table(title, headers, [])
    tests = []
    drawn: list[str] = []
    for other in others:
        said: list[str] = []
        pairs = pairs_of(first, other, said)
        table.notes += [f"against {other.label}: {line}" for line in said]
        try:
            cells = _differences(pairs, metrics, times)
        except ValueError as error:
            table.notes.append(f"{other.label}: left out ({error})")
            continue
        tests.append([statistics.mcnemar(pair.a.correct, pair.b.correct)[2] for pair in pairs])
        drawn = patients_note([[pair.a, pair.b] for pair in pairs])
        table.rows.append([other.label, *cells])
    if not table.rows:
        return None
    corrected = statistics.holm([p for own in tests for p in own]).tolist()
    for row, own in zip(table.rows, tests, strict=True):
        mine, corrected = corrected[: len(own)], corrected[len(own) :]
        row += [f"{sum(p < 0.05 for p in mine)} of {len(mine)}", PValue(min(mine))]
    table.notes += [
        f"{first.label} minus the other, in points; [low, high]: 95 % paired bootstrap over the "
        "test images; an interval that contains 0 is within their noise",
        "McNemar's exact test for each pair of runs with one backbone and seed; p values by Holm's "
        f"correction over all {sum(map(len, tests))} tests of this table",
        *drawn,
    ]
    return table


def _differences(pairs: Sequence[Pair], metrics: Sequence[str], times: int) -> list[Estimate]:
    """A minus B of each metric, with its interval.

    Raises:
        ValueError: there are no pairs, or they cannot be pooled.
    """
    if not pairs:
        raise ValueError("no runs with one backbone and seed")
    differences = statistics.bootstrap_difference(*sides(pairs), metrics, times)
    return [Estimate(d, None, low, high, signed=True) for d, low, high in differences.values()]


def read_history(path: Path | str) -> dict[str, np.ndarray] | None:
    """A run's history.csv as {column: array}; NaN where a cell is empty. None if there is none."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        found = {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in ("epoch", "loss", "val_accuracy")
        }
        return found if rows else None
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return None
