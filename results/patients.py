"""Predictions of patients: those of a patient's images as one, and their table.

A patient is what the dataset calls one (``patient`` of a table, ``DATASET.PATIENT_PATTERN``). Where
it tells lesions apart in place of patients, as HAM10000 does, read lesion for patient.
"""

import numpy as np

from core.errors import InputError
from results.choices import Choices, over_what
from results.intervals import aligned_groups, first_of
from results.metrics import METRICS, metrics_of
from results.predictions import Predictions
from results.rendering import Table
from results.rows import (
    Gaps,
    Task,
    estimate_of,
    expected_backbones,
    expected_seeds,
    methods_of,
    tasks_of,
)
from results.runs import Run

WHAT = {
    "mean": "the mean of the probabilities of its images",
    "max": "the probabilities of that of its images in which the positive class is most probable",
}


def by_patient(run: Predictions, combine: str) -> Predictions:
    """One prediction for each patient; an image of an unknown patient counts as a patient.

    A patient whose images are of several classes is of the positive class if one of them is, and
    left out where no class is named positive or none of the images is of it.

    Args:
        combine: "mean" or "max", see ``WHAT``.

    Raises:
        InputError: no patient is known; or "max" without a positive class.
    """
    if not len(run.groups):
        raise InputError("the patients of its images are not known")
    if combine == "max" and run.positive is None:
        raise InputError("max needs a positive class; name it by DATASET.POSITIVE, or use mean")
    keys = [f"patient {g}" if g else i for g, i in zip(run.groups, run.images, strict=True)]
    names, patient = np.unique(np.array(keys), return_inverse=True)
    labels = _labels(run, patient, len(names))
    if combine == "mean":
        sums = np.zeros((len(names), len(run.classnames)))
        np.add.at(sums, patient, run.probabilities)
        probabilities = sums / np.bincount(patient)[:, None]
    else:
        assert run.positive is not None
        score = run.probabilities[:, run.classnames.index(run.positive)]
        order = np.lexsort((-score, patient))
        first = np.searchsorted(patient[order], np.arange(len(names)))
        probabilities = run.probabilities[order[first]]
    found = Predictions(
        names, labels, probabilities.argmax(axis=1), probabilities, run.classnames,
        positive=run.positive,
    )  # fmt: skip
    return found.take(np.flatnonzero(labels >= 0))


def _labels(run: Predictions, patient: np.ndarray, n: int) -> np.ndarray:
    """The class of each of n patients; -1 where its images have several and none is positive."""
    images = np.zeros((n, len(run.classnames)), dtype=int)  # of each class
    np.add.at(images, (patient, run.labels), 1)
    labels = np.where((images > 0).sum(axis=1) == 1, images.argmax(axis=1), -1)
    if run.positive is not None:
        positive = run.classnames.index(run.positive)
        labels[images[:, positive] > 0] = positive
    return labels


def patient_notes(run: Predictions, combine: str) -> list[str]:
    """What the patients of a run's test images are, and how their predictions were made."""
    judged = by_patient(run, combine)
    known = len(set(run.groups.tolist()) - {""})
    unknown = int((run.groups == "").sum())
    mixed = known + unknown - len(judged)
    notes = [f"{len(run)} images of {known} patients; of a patient: {WHAT[combine]}"]
    if unknown:
        notes.append(f"{unknown} images of unknown patients count as a patient each")
    several = "patients whose images are of several classes"
    if mixed:
        notes.append(
            f"{mixed} {several}, none of them positive, are left out; {len(judged)} are judged"
        )
    if run.positive:
        notes.append(f"{several} count as {run.positive} (positive class) if one image is")
    return notes


def patient_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Metrics over patients, a table for each task whose runs know the patients."""
    return [
        _patient_table(task, own, choices)
        for task, own in tasks_of(runs).items()
        if any(_knows_patients(run) for run in own)
    ]


def _knows_patients(run: Run) -> bool:
    try:
        return len(run.predictions().groups) > 0
    except InputError:
        return False


def _patient_table(task: Task, runs: list[Run], choices: Choices) -> Table:
    combine = choices.patients or "mean"
    gaps = Gaps(expected_backbones(runs), expected_seeds(runs, choices.seeds))
    title = f"{task.title}, by patient ({combine})"
    table = Table(title, ["method", *choices.headings, "runs"], [])
    about: list[str] = []
    left_out: list[str] = []
    for method in methods_of(runs):
        if not method.by_backbone:
            continue
        try:
            groups = aligned_groups(method.prediction_groups())
            about = about or patient_notes(first_of(groups), combine)
            judged = {b: [by_patient(run, combine) for run in own] for b, own in groups.items()}
        except (InputError, ValueError) as error:
            left_out.append(f"{method.label}: left out ({error})")
            continue
        table.rows.append([method.label, *_cells(judged, choices, gaps.single), gaps.count(method)])
    table.notes += [over_what(gaps.backbones), *about, *gaps.notes(), *left_out]
    if "macro_f1" in choices.metrics:
        table.notes[0] += f"; {METRICS['macro_f1'].heading} is {METRICS['macro_f1'].title}"
    if choices.intervals:
        table.notes.append(
            f"[low, high]: 95 % interval, {choices.intervals.times} bootstrap resamples of the "
            "patients"
        )
    return table


def _cells(groups: dict[str, list[Predictions]], choices: Choices, over_seeds: bool) -> list:
    bounds = choices.intervals.of(groups) if choices.intervals else {}
    values = {b: [metrics_of(run, choices.metrics) for run in own] for b, own in groups.items()}
    cells = []
    for name in choices.metrics:
        own = {b: [found[name] for found in seeds] for b, seeds in values.items()}
        cells.append(estimate_of(own, bounds.get(name), over_seeds))
    return cells
