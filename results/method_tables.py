"""The paper's Table 1: a row for each method, for each dataset and setting of the runs."""

from collections.abc import Sequence

import numpy as np

from results import paper, statistics
from results.choices import Choices, over_what
from results.intervals import first_of, same_images
from results.metrics import METRICS, heading, metrics_of
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
    printed = paper.TABLE_1.get(task.dataset) if task == Task(task.dataset) else None
    printed = printed if choices.beside_paper else None
    columns = choices.printed_metrics if printed else []
    names = [*choices.headings, *(f"paper {heading(m)}" for m in columns)]
    table = Table(task.title, ["method", *names, "runs"], [])
    table.rows += _majority_row(runs, choices, len(columns), table.notes)
    gaps = Gaps(expected_backbones(runs), expected_seeds(runs, choices.seeds))
    drawn: Drawn = {}
    for method in methods_of(runs):
        bounds = {}
        if intervals and method.by_backbone and (groups := intervals.groups(method, table.notes)):
            samples = intervals.samples(groups)
            drawn[method.label] = (method, groups, samples)
            bounds = {m: statistics.interval(v) for m, v in samples.items()}
        cells = estimates(method, choices, bounds, gaps.single)
        known = printed.get(method.trainer, {}) if printed and is_paper_row(method) else {}
        beside = [Estimate(*known[m]) if m in known else None for m in columns]
        table.rows.append([method.label, *cells, *beside, gaps.count(method)])
    what, *explained = choices.explain(over_what(gaps.backbones))
    table.notes += [what, *gaps.notes(), *precision_notes(runs), *explained]
    table.notes += _noise(drawn, metrics[0])
    if printed:
        table.notes += _paper_notes(task.dataset)
    return table


def estimates(method: Method, choices: Choices, bounds: dict, over_seeds: bool) -> list:
    """The cells of a row, a metric each."""
    if not method.by_backbone:
        return [DOES_NOT_APPLY] * len(choices.metrics)
    return [method.estimate(m, bounds.get(m), over_seeds) for m in choices.metrics]


def is_paper_row(method: Method) -> bool:
    """Whether the paper's figure belongs beside this row.

    Its "Supervised" starts from random weights; a row that starts from CLIP's is not it.
    """
    starts = [str(value).lower() for value in method.options.values()]
    if method.trainer == "Supervised":
        return starts == ["scratch"] or not starts
    return method.is_default


def _majority_row(
    runs: list[Run], choices: Choices, more_columns: int, notes: list[str]
) -> list[list]:
    """The row that always predicts the most frequent class of the whole training split."""
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


def _paper_notes(dataset: str) -> list[str]:
    rival, lead = paper.margin(dataset)
    n = paper.IMAGES[dataset]
    share = paper.TABLE_1[dataset]["ViP"]["accuracy"][0]
    width = statistics.binomial_half_width(share, n)
    inside = "within" if lead < width else "outside"
    return [
        "paper: ViT-B/16, ViT-L/14 and RN50, three seeds each",
        f"the paper's ViP leads {rival} by {100 * lead:.2f} points of accuracy, which is {inside} "
        f"the 95 % half-width of {100 * width:.1f} points that {n} test images give one accuracy",
    ]
