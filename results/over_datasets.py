"""Means over datasets, as the tables of few-shot papers print them: few-shot, and base to new.

A figure is the mean over datasets of the figure that the dataset's own table has. A row that lacks
a dataset has no mean, because means over different datasets cannot be compared.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from results.choices import Choices, over_what
from results.layouts import HALVES, halves_of, harmonic_mean
from results.metrics import heading
from results.rendering import Estimate, Table
from results.rows import Gaps, Method, expected_backbones, expected_seeds, methods_of, tasks_of
from results.runs import Run

Found = dict[str, dict[str, Method]]  # label of a row -> dataset -> its runs


def mean_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Few-shot and base-to-new tables of means over the datasets of ``runs``, if there are two."""
    if len({run.dataset for run in runs}) < 2:
        return []
    return [*_shots_tables(runs, choices), *_halves_tables(runs, choices)]


# Few-shot


def _shots_tables(runs: list[Run], choices: Choices) -> list[Table]:
    by_shots: dict[int, Found] = defaultdict(lambda: defaultdict(dict))
    untrained: Found = defaultdict(dict)
    for task, task_runs in tasks_of(runs).items():
        if task.subsample_classes == "all" and not task.trained_on:
            for method in methods_of(task_runs):
                if not method.learns:
                    untrained[method.label][task.dataset] = method
                elif task.shots > 0:
                    by_shots[task.shots][method.label][task.dataset] = method
    for found in by_shots.values():
        found.update(untrained)
    return [_shots_table(by_shots, metric, choices) for metric in choices.metrics if by_shots]


def _shots_table(by_shots: Mapping[int, Found], metric: str, choices: Choices) -> Table:
    numbers = sorted(by_shots)
    labels = _labels(by_shots.values())
    datasets = _datasets(by_shots.values())
    title = f"mean over {len(datasets)} datasets, few-shot, {heading(metric)}"
    headers = [f"{number} shot{'s' * (number > 1)}" for number in numbers]
    table = Table(title, ["method", *headers], [])
    notes = _Notes(datasets, by_shots.values(), choices)
    for label in labels:
        cells: list[Estimate | None] = []
        for number, header in zip(numbers, headers, strict=True):
            found = by_shots[number].get(label, {})
            notes.count(label, found, header)
            cells.append(_mean(_estimates(found, metric), datasets))
        table.rows.append([label, *cells])
    table.notes = notes.lines()
    return table


# Base to new


def _halves_tables(runs: list[Run], choices: Choices) -> list[Table]:
    by_shots: dict[int, dict[str, Found]] = defaultdict(
        lambda: {half: defaultdict(dict) for half in HALVES}
    )
    for task, both in halves_of(runs).items():
        for half, half_runs in both.items():
            for method in methods_of(half_runs):
                by_shots[task.shots][half][method.label][task.dataset] = method
    return [
        _halves_table(shots, both, choices)
        for shots, both in sorted(by_shots.items())
        if len(_datasets(both.values())) > 1
    ]


def _halves_table(shots: int, both: Mapping[str, Found], choices: Choices) -> Table:
    datasets = _datasets(both.values())
    title = f"mean over {len(datasets)} datasets, base to new"
    if shots > 0:
        title += f", {shots} shot{'s' * (shots > 1)} a class"
    parts = [*HALVES, "HM", "HM of means"]
    headers = [f"{part} {heading(metric)}" for metric in choices.metrics for part in parts]
    table = Table(title, ["method", *headers], [])
    notes = _Notes(datasets, both.values(), choices)
    for label in _labels(both.values()):
        found = {half: both[half].get(label, {}) for half in HALVES}
        for half in HALVES:
            notes.count(label, found[half], f"{half} classes")
        cells: list[Estimate | None] = []
        for metric in choices.metrics:
            base, new = (_estimates(found[half], metric) for half in HALVES)
            own = {name: harmonic_mean(base[name], new.get(name)) for name in base}
            means = _mean(base, datasets), _mean(new, datasets)
            cells += [*means, _mean(own, datasets), harmonic_mean(*means)]
        table.rows.append([label, *cells])
    table.notes = [
        *notes.lines(),
        "HM is the mean over datasets of each one's harmonic mean of base and new; HM of means is "
        "the harmonic mean of the two means. Papers print the one or the other",
    ]
    return table


# What both have in common


class _Notes:
    """What the figures are, and what rows lack."""

    def __init__(self, datasets: list[str], found: Iterable[Found], choices: Choices) -> None:
        runs = [
            run
            for rows in found
            for methods in rows.values()
            for method in methods.values()
            for run in method.runs
        ]
        self.datasets, self.choices = datasets, choices
        self.gaps = Gaps(expected_backbones(runs), expected_seeds(runs, choices.seeds))

    def count(self, label: str, found: Mapping[str, Method], where: str) -> None:
        """Note what a row lacks in one column."""
        if lacking := [name for name in self.datasets if name not in found]:
            self.gaps.rows[f"no runs of {', '.join(lacking)}, so no mean"].append(
                f"{label}, {where}"
            )
        for name, method in found.items():
            self.gaps.count(method, f"{label}, {name}, {where}")

    def lines(self) -> list[str]:
        what, *explained = self.choices.explain(
            f"mean over the datasets {', '.join(self.datasets)}; of each: "
            f"{over_what(self.gaps.backbones).replace(' (deviation, ddof 0)', '')}"
        )
        return [what, *self.gaps.notes(), *explained]


def _labels(found: Iterable[Found]) -> list[str]:
    """The labels of all rows, in the order of tables."""
    order = {
        label: method.order
        for rows in found
        for label, methods in rows.items()
        for method in methods.values()
    }
    return sorted(order, key=lambda label: order[label])


def _datasets(found: Iterable[Found]) -> list[str]:
    return sorted({name for rows in found for methods in rows.values() for name in methods})


def _estimates(found: Mapping[str, Method], metric: str) -> dict[str, Estimate | None]:
    return {name: method.estimate(metric) for name, method in found.items()}


def _mean(estimates: Mapping[str, Estimate | None], datasets: Sequence[str]) -> Estimate | None:
    """The mean over datasets; None if one of them has no figure."""
    values = [estimate.value for name in datasets if (estimate := estimates.get(name))]
    return Estimate(float(np.mean(values))) if len(values) == len(datasets) else None
