"""Runs judged on validation and test images: what tables of thresholds and the like have in common.

What is chosen on the validation images of a run is applied, unchanged, to its test images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from core.errors import InputError
from results import statistics
from results.choices import Choices, over_what
from results.intervals import aligned_groups, patients_note
from results.patients import by_patient, patient_notes
from results.predictions import Predictions
from results.rendering import Estimate, Table
from results.rows import (
    Gaps,
    Method,
    Task,
    estimate_of,
    expected_backbones,
    expected_seeds,
    methods_of,
    tasks_of,
)
from results.runs import Run

INTERVAL = (
    f"[low, high]: 95 % interval, {statistics.RESAMPLES} bootstrap resamples of the test set; of a "
    "share of 0 or 1 it is Wilson's"
)
SPLIT_NOTE = "tested on its validation images, on which nothing can be chosen"


class Judged(NamedTuple):
    """A run's predictions on its validation and on its test images, or on the patients of both."""

    val: Predictions
    test: Predictions


@dataclass(frozen=True)
class JudgedMethod:
    """The judged runs of a row by backbone, the test images of all in one order.

    Attributes:
        over_seeds: whether deviations are over the seeds of the one backbone.
    """

    method: Method
    groups: dict[str, list[Judged]]
    over_seeds: bool

    @property
    def first(self) -> Judged:
        return next(iter(self.groups.values()))[0]

    @property
    def clusters(self) -> np.ndarray | None:
        """Which test images are drawn together, as ``statistics.clusters_of`` gives."""
        return statistics.clusters_of([[one.test for one in own] for own in self.groups.values()])

    def estimate(self, value: Callable[..., float], *options: Any) -> Estimate | None:
        """Mean and deviation over the runs of ``value(judged, *options)``; None if one is NaN."""
        values = {b: [value(one, *options) for one in own] for b, own in self.groups.items()}
        if np.isnan([x for own in values.values() for x in own]).any():
            return None
        return estimate_of(values, over_seeds=self.over_seeds)

    def ratio(self, parts: Callable[..., statistics.Share], *options: Any) -> Estimate | None:
        """The same of a ratio over the test images, with its bootstrap interval.

        Args:
            parts: called with a run and the options; gives numerator and denominator of each image.

        Returns:
            The estimate; None where a denominator is 0.
        """
        groups = {b: [parts(one, *options) for one in own] for b, own in self.groups.items()}
        if not all(whole.sum() for own in groups.values() for _, whole in own):
            return None
        values = {b: [float(x.sum() / y.sum()) for x, y in own] for b, own in groups.items()}
        samples = statistics.bootstrap_shares(list(groups.values()), self.clusters)
        return estimate_of(values, statistics.interval(samples), self.over_seeds)

    def share(self, parts: Callable[..., statistics.Share], *options: Any) -> Estimate | None:
        """``ratio`` of a share of images; of a share of 0 or 1 with Wilson's interval."""
        found = self.ratio(parts, *options)
        if found is None or 0 < found.value < 1:
            return found
        of_class = np.flatnonzero(parts(self.first, *options)[1])
        units = of_class if self.clusters is None else np.unique(self.clusters[of_class])
        low, high = statistics.wilson_interval(found.value, len(units))
        return replace(found, low=low, high=high)


def decision_tables(
    runs: list[Run],
    choices: Choices,
    fill: Callable[[Table, list[JudgedMethod]], None],
    what: str,
    headers: list[str],
    intervals: bool = True,
) -> list[Table]:
    """A table for each task that has runs with predictions on validation images.

    Args:
        fill: adds the rows, without their last cell, and the notes on what they say.
        what: the table's title after the task's.
        headers: before the last one, "runs".
        intervals: whether rows have them; a note then says where patients are drawn.
    """
    tables = []
    for task, task_runs in tasks_of(runs).items():
        if not any(run.has_validation_predictions for run in task_runs):
            continue
        table = Table(f"{_title(task, choices)}, {what}", list(headers), [])
        gaps = Gaps(expected_backbones(task_runs), expected_seeds(task_runs, choices.seeds))
        left_out: list[str] = []
        methods = judged_methods(task_runs, choices, gaps.single, left_out)
        if methods:
            fill(table, methods)
        table.headers.append("runs")
        counts = {one.method.label: gaps.count(one.method) for one in methods}
        for row in table.rows:
            row.append(counts[row[0]])
        if methods:
            table.notes.insert(0, over_what(gaps.backbones))
            table.notes += _case_notes(methods[0], choices.patients, intervals)
        table.notes += [*_reuse_note(methods), *gaps.notes(), *left_out]
        tables.append(table)
    return tables


def _case_notes(one: JudgedMethod, combine: str | None, intervals: bool) -> list[str]:
    """How many images or patients were judged, and what the patients are."""
    sizes = f"{len(one.first.val)} validation and {len(one.first.test)} test"
    if combine:
        run = one.method.by_backbone[next(iter(one.groups))][0]
        return [f"{sizes} patients", *patient_notes(run.predictions(), combine)]
    notes = [f"{sizes} images"]
    if statistics.clusters_of([[one.first.val]]) is not None:
        notes[0] += (
            "; several validation images are of one patient, so they say less than as many patients"
        )
    tests = [[judged.test for judged in own] for own in one.groups.values()]
    return [*notes, *(patients_note(tests) if intervals else [])]


def _title(task: Task, choices: Choices) -> str:
    return task.title + (f", by patient ({choices.patients})" if choices.patients else "")


def judged_methods(
    runs: list[Run], choices: Choices, over_seeds: bool, notes: list[str]
) -> list[JudgedMethod]:
    """The rows whose runs have predictions on both splits; why others have not goes to notes."""
    found = []
    for method in methods_of(runs):
        if not method.by_backbone:
            continue
        try:
            groups = _judged(method, choices.patients)
        except (InputError, ValueError) as error:
            notes.append(f"{method.label}: left out ({error})")
            continue
        found.append(JudgedMethod(method, groups, over_seeds))
    return found


def _judged(method: Method, combine: str | None) -> dict[str, list[Judged]]:
    if any(run.record.split == "val" for run in method.runs):
        raise InputError(SPLIT_NOTE)
    val = {
        b: [run.validation_predictions() for run in own] for b, own in method.by_backbone.items()
    }
    test = method.prediction_groups()
    if combine:
        val, test = (
            {b: [by_patient(run, combine) for run in own] for b, own in groups.items()}
            for groups in (val, test)
        )
    test = aligned_groups(test)
    return {b: [Judged(*both) for both in zip(val[b], test[b], strict=True)] for b in test}


def _reuse_note(methods: list[JudgedMethod]) -> list[str]:
    """Which rows' validation images have chosen something before."""
    reused = [one.method for one in methods if _chose_on_validation(one.method)]
    if not reused:
        return []
    who = "all rows" if len(reused) == len(methods) else ", ".join(m.label for m in reused)
    advice = "; TEST.FINAL_MODEL last_step chooses no epoch"
    return [
        f"{who}: the validation images chose the epoch or an option before, so they are not "
        "exchangeable with the test images: the model does a little better on them than on new "
        "images, and what is chosen here may be a little too hopeful"
        + (advice if not all(method.fitted_at_once for method in reused) else "")
    ]


def _chose_on_validation(method: Method) -> bool:
    run = method.runs[0]
    if not run.learns or run.trained_on:
        return False
    return method.fitted_at_once or (run.config or {}).get("TEST.FINAL_MODEL") != "last_step"
