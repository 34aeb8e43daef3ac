"""Sensitivity at a fixed specificity, and the reverse: thresholds chosen on validation images."""

from dataclasses import replace

import numpy as np

from core.errors import InputError
from results import statistics
from results.choices import RATES, Choices, OperatingPoint
from results.decisions import INTERVAL, Judged, JudgedMethod, decision_tables
from results.metrics import positive_label
from results.predictions import Predictions
from results.rendering import Table
from results.runs import Run


def threshold_for(positive: np.ndarray, scores: np.ndarray, point: OperatingPoint) -> float:
    """The threshold that reaches a rate on these images and gives up least of the other rate.

    An image is called positive where its score is at least the threshold. For a sensitivity it is
    the largest threshold that reaches it, for a specificity the smallest.

    Args:
        positive: ``[n]`` bool. scores: ``[n]``, higher for positive.

    Raises:
        InputError: there is no image of the class that the rate is of.
    """
    of_class = positive if point.rate == "sensitivity" else ~positive
    ordered = np.sort(scores[of_class])
    if not len(ordered):
        name = "positive" if point.rate == "sensitivity" else "negative"
        raise InputError(f"no validation image is {name}, so no threshold can be chosen")
    # A product such as .7 * 10 may be a little more than 7.
    needed = int(np.ceil(point.target * len(ordered) - 1e-9))  # images to be called correctly
    if point.rate == "sensitivity":
        return float(ordered[-max(needed, 1)])
    return float(np.nextafter(ordered[max(needed, 1) - 1], np.inf))


def _scores(run: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """(positive, score) of each image."""
    label = positive_label(run)
    return run.labels == label, run.probabilities[:, label]


def run_threshold(judged: Judged, point: OperatingPoint) -> float:
    """``threshold_for`` a run, on its validation images."""
    return threshold_for(*_scores(judged.val), point)


def called_correctly(judged: Judged, point: OperatingPoint, rate: str) -> statistics.Share:
    """The sensitivity or specificity of a run on its test images: numerator and denominator."""
    positive, scores = _scores(judged.test)
    called = scores >= run_threshold(judged, point)
    if rate == "sensitivity":
        return (positive & called).astype(float), positive.astype(float)
    return (~positive & ~called).astype(float), (~positive).astype(float)


def operating_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """What a threshold chosen on validation images achieves on test images; a table a task."""
    point = choices.operating
    if point is None:
        return []
    chosen: OperatingPoint = point

    def fill(table: Table, methods: list[JudgedMethod]) -> None:
        run = methods[0].first.test
        if run.positive is None and len(run.classnames) > 2:
            table.notes.append("no class is named positive; name one by DATASET.POSITIVE")
            return
        for one in methods:
            _add_row(table, one, chosen)
        table.notes += _notes(methods[0].first, chosen)

    headers = ["method", "threshold", "sensitivity", "specificity"]
    return decision_tables(runs, choices, fill, f"threshold for {chosen}", headers)


def _add_row(table: Table, one: JudgedMethod, point: OperatingPoint) -> None:
    try:
        threshold = one.estimate(run_threshold, point)
    except InputError as error:
        table.notes.append(f"{one.method.label}: left out ({error})")
        return
    rates = [one.share(called_correctly, point, rate) for rate in RATES]
    shown = threshold and replace(threshold, tiny=True)
    table.rows.append([one.method.label, shown, *rates])


def _notes(judged: Judged, point: OperatingPoint) -> list[str]:
    run = judged.test
    name = run.classnames[positive_label(run)]
    unnamed = "" if run.positive else " (the second class; name another by DATASET.POSITIVE)"
    against = "" if len(run.classnames) == 2 else ", against all other classes"
    positive, _ = _scores(judged.val)
    n = int(positive.sum() if point.rate == "sensitivity" else (~positive).sum())
    what = "positive" if point.rate == "sensitivity" else "negative"
    notes = [
        f"positive class: {name}{unnamed}{against}; called positive where its probability is at "
        "least the threshold",
        f"each run's threshold reaches {point} on its validation images and is applied unchanged "
        "to its test images",
        f"{INTERVAL}. The thresholds are taken as they are",
    ]
    if n:
        width = 100 * statistics.binomial_half_width(point.target, n)
        notes.append(
            f"the threshold rests on {n} {what} validation cases: by their number alone, the true "
            f"{point.rate} may differ from {point.target:g} by {width:.0f} points"
        )
    return notes
