"""The paper's Table 1: a row for each method, for each dataset and setting of the runs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from results import statistics
from results.beside import paper_columns
from results.choices import Choices, over_what
from results.intervals import first_of, same_images
from results.metrics import METRICS, metrics_of
from results.predictions import Predictions
from results.rendering import Estimate, Table
from results.rows import (
    Gaps,
    Method,
    Task,
    expected_backbones,
    expected_seeds,
    methods_of,
    precision_notes,
    tasks_of,
)
from results.runs import Run

DOES_NOT_APPLY = "does not apply"
# Label -> (method, aligned predictions by backbone, bootstrap samples by metric).
Drawn = dict[str, tuple[Method, dict[str, list[Predictions]], dict[str, np.ndarray]]]


def paper_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """A table for each task of the runs but external tests."""
    tasks = tasks_of(runs)
    found = []
    for task, task_runs in tasks.items():
        if not task.trained_on:
            table = method_table(task, task_runs, choices)
            untrained = _untrained(tasks.get(task._replace(shots=-1), []))
            if task.shots > 0 and untrained:
                table.notes.append(
                    f"{', '.join(untrained)}: see {task._replace(shots=-1).title}; nothing is "
                    "trained, so the number of shots has no effect"
                )
            found.append(table)
    return found


def _untrained(runs: list[Run]) -> list[str]:
    return [method.label for method in methods_of(runs) if not method.learns]


def method_table(task: Task, runs: list[Run], choices: Choices) -> Table:
    """Rows are methods, columns metrics: mean (deviation) over backbones of the mean over seeds."""
    metrics, intervals = choices.metrics, choices.intervals
    methods = methods_of(runs)
    gaps = Gaps(expected_backbones(runs), expected_seeds(runs, choices.seeds))
    papers = paper_columns(choices, task, gaps.backbones, methods)
    columns = [text for paper in papers for text in paper.headings]
    table = Table(task.title, ["method", *choices.headings, *columns, "runs"], [])
    drawn: Drawn = {}
    said: list[str] = []
    for method in methods:
        bounds = {}
        if intervals and method.by_backbone and (groups := intervals.groups(method, said)):
            samples = intervals.samples(groups)
            drawn[method.label] = (method, groups, samples)
            bounds = {m: statistics.interval(v) for m, v in samples.items()}
        cells = estimates(method, choices, bounds, gaps.single)
        beside = [cell for paper in papers for cell in paper.cells(method)]
        table.rows.append([method.label, *cells, *beside, gaps.count(method)])
    tested = next((first_of(groups) for _, groups, _ in drawn.values()), None)
    table.rows[:0] = _majority_row(runs, choices, len(columns), table.notes, tested)
    what, *explained = choices.explain(over_what(gaps.backbones))
    table.notes += [*said, what, *gaps.notes(), *precision_notes(runs), *explained]
    table.notes += _noise(drawn, metrics[0])
    table.notes += [note for paper in papers for note in paper.notes()]
    return table


def estimates(method: Method, choices: Choices, bounds: dict, over_seeds: bool) -> list:
    """The cells of a row, a metric each."""
    if not method.by_backbone:
        return [DOES_NOT_APPLY] * len(choices.metrics)
    return [method.estimate(m, bounds.get(m), over_seeds) for m in choices.metrics]


def _majority_row(
    runs: list[Run],
    choices: Choices,
    more_columns: int,
    notes: list[str],
    tested: Predictions | None = None,
) -> list[list]:
    """The row that always predicts the most frequent class of the whole training split.

    Args:
        tested: a run on the test images, which tells their patients for the interval.
    """
    known = [run for run in runs if run.record.class_counts.get(run.record.split)]
    if not known:
        return []
    counted = next((run for run in known if run.record.training_split_counts), None)
    whole = counted or next((run for run in known if run.record.shots < 1), None)
    if whole is None:
        notes.append(
            "majority class: not known, because these results files (of an older version) do not "
            "count the whole training split"
        )
        return []
    record = whole.record
    training = record.training_split_counts or record.class_counts.get("train", {})
    classnames = record.classnames or tuple(training)
    training = {name: training.get(name, 0) for name in classnames}
    if not any(training.values()):
        return []
    most = max(training.values())
    tied = [name for name in classnames if training[name] == most]
    if len(tied) > 1:
        notes.append(f"majority class: {', '.join(tied)} are as frequent; predicts {tied[0]}")
    elif any(run.record.shots > 0 for run in runs):
        notes.append(f"majority class: {tied[0]}, the most frequent in the whole training split")
    rule = majority_predictions(classnames, tied[0], record.class_counts[record.split])
    if tested is not None and tested.classnames == classnames and len(tested.groups):
        rule = replace(
            tested,
            predicted=np.full(len(tested), rule.predicted[0]),
            probabilities=np.tile(rule.probabilities[0], (len(tested), 1)),
        )
    values = metrics_of(rule, choices.metrics)
    bounds = choices.intervals.of({"": [rule]}) if choices.intervals else {}
    cells = [Estimate(values[m], None, *bounds.get(m, (None, None))) for m in choices.metrics]
    return [["majority class", *cells, *[None] * more_columns, ""]]


def majority_predictions(
    classnames: Sequence[str], majority: str, test_counts: dict[str, int]
) -> Predictions:
    """Predictions of always the same class, on as many test images as are counted."""
    labels = np.repeat(np.arange(len(classnames)), [test_counts.get(n, 0) for n in classnames])
    label = list(classnames).index(majority)
    return Predictions(
        images=np.array([f"{i:09d}" for i in range(len(labels))]),
        labels=labels,
        predicted=np.full(len(labels), label),
        probabilities=np.tile(np.eye(len(classnames))[label], (len(labels), 1)),
        classnames=tuple(classnames),
    )


def _noise(drawn: Drawn, metric: str) -> list[str]:
    """Which rows do not differ from the best one, by the paired interval of the difference."""
    if len(drawn) < 2:
        return []
    best = max(drawn, key=lambda label: drawn[label][0].mean(metric))
    _, best_groups, best_samples = drawn[best]
    alike = []
    for label, (_, groups, samples) in drawn.items():
        if label == best or not same_images(groups, best_groups):
            continue
        if statistics.within_noise(*statistics.interval(best_samples[metric] - samples[metric])):
            alike.append(label)
    if not alike:
        return []
    return [
        f"{best} has the highest {METRICS[metric].title}, but its lead is within the noise of "
        f"{len(first_of(best_groups))} test images over: {', '.join(alike)}"
    ]
