"""Calibration before and after the temperature that validation images ask for."""

import numpy as np

from results.calibration import (
    BINS,
    LARGEST,
    brier_score,
    calibrate,
    expected_calibration_error,
    negative_log_likelihood,
)
from results.choices import Choices
from results.decisions import Judged, JudgedMethod, decision_tables
from results.rendering import Table
from results.runs import Run

HEADERS = [
    "method",
    "temperature",
    *(f"{name} {when}" for name in ("ECE", "Brier", "NLL") for when in ("before", "after")),
]
NOTES = [
    "before: the probabilities as they are; after: their logits divided by the temperature with "
    "the smallest NLL on the run's validation images. It changes no prediction",
    f"ECE: expected calibration error, the mean gap between confidence (probability of the "
    f"predicted class) and accuracy over {BINS} bins of equal width, weighted by their images; "
    "0 is best. With few images it is above 0 for a perfect model too",
    "Brier: mean squared distance of the probabilities to the true class, summed over the classes "
    "(0 to 2). NLL: mean of -log p(true class), natural logarithm. For both, lower is better",
]


def calibrated(judged: Judged) -> np.ndarray:
    """``[n, n_cls]`` test probabilities at the temperature of the validation images."""
    return calibrate(judged.val.probabilities, judged.val.labels).apply(judged.test.probabilities)


def calibration_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Temperature and measures of calibration, a table for each task."""
    return decision_tables(runs, choices, _fill, "calibration", HEADERS, intervals=False)


def _fill(table: Table, methods: list[JudgedMethod]) -> None:
    at_the_end = []
    for one in methods:
        cells = [one.estimate(_measure, place) for place in range(len(HEADERS) - 1)]
        table.rows.append([one.method.label, *cells])
        fitted = [_measure(judged, 0) for own in one.groups.values() for judged in own]
        if not all(1.01 / LARGEST < temperature < LARGEST / 1.01 for temperature in fitted):
            at_the_end.append(one.method.label)
    table.notes += NOTES
    if at_the_end:
        table.notes.append(
            f"{', '.join(at_the_end)}: a temperature is at the end of its range (1/{LARGEST:g} "
            f"to {LARGEST:g}); the best one lies beyond it"
        )


def _measure(judged: Judged, place: int) -> float:
    """The number in a column of the table, from the temperature on."""
    fitted = calibrate(judged.val.probabilities, judged.val.labels)
    labels, before = judged.test.labels, judged.test.probabilities
    both = (before, fitted.apply(before))
    correct = judged.test.correct.astype(float)
    return [
        fitted.temperature,
        *(expected_calibration_error(p.max(axis=1), correct) for p in both),
        *(brier_score(p, labels) for p in both),
        *(negative_log_likelihood(p, labels) for p in both),
    ][place]
