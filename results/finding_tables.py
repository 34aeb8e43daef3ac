"""Tables of runs on several findings an image: methods by macro figures, and finding by finding."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from core.errors import InputError
from results import statistics
from results.choices import Choices, over_what
from results.findings import (
    MACRO,
    FindingPredictions,
    align_findings,
    auroc_of,
    f1_of,
    weighted_figures,
)
from results.intervals import patients_note
from results.method_tables import DOES_NOT_APPLY
from results.record import FindingMetrics
from results.rendering import Table
from results.rows import (
    Bounds,
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

FIGURES = (("AUROC", auroc_of), ("F1", f1_of))  # of one finding: heading, its name
# Predictions, thresholds, and the run's share in the mean over backbones of seeds.
Weighted = tuple[FindingPredictions, np.ndarray, float]


def finding_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """For each task: a row for each method, then for AUROC and F1 a row for each finding."""
    tables = []
    for task, task_runs in tasks_of(runs).items():
        methods = methods_of(task_runs)
        notes: list[str] = []
        bounds = {m.label: _bounds(m, choices, notes) for m in methods}
        tables.append(_macro_table(task, task_runs, methods, choices, bounds, notes))
        tables += _by_finding(task, methods, choices, bounds)
    return tables


def _macro_table(
    task: Task,
    runs: Sequence[Run],
    methods: Sequence[Method],
    choices: Choices,
    bounds: dict[str, dict[str, Bounds]],
    notes: list[str],
) -> Table:
    title = f"{task.title}, several findings an image"
    table = Table(title, ["method", *MACRO.values(), "runs"], [])
    gaps = Gaps(expected_backbones(runs), expected_seeds(runs, choices.seeds))
    for method in methods:
        cells = [
            method.estimate(name, bounds[method.label].get(name), gaps.single)
            if method.by_backbone
            else DOES_NOT_APPLY
            for name in MACRO
        ]
        table.rows.append([method.label, *cells, gaps.count(method)])
    table.notes += [over_what(gaps.backbones), *_explained(runs, choices), *gaps.notes()]
    table.notes += [*precision_notes(runs), *notes]
    return table


def _explained(runs: Sequence[Run], choices: Choices) -> list[str]:
    """What the macro figures are means over, where thresholds are from, and what intervals are."""
    figures = [run.record.finding_metrics for run in runs if run.record.finding_metrics]
    undefined = sorted(
        {name for f in figures for name, of in f.findings.items() if of.auroc is None}
    )
    notes = ["macro figures are means over the findings that the test images have both values of"]
    if undefined:
        notes.append(f"without two values in the test images: {', '.join(undefined)}")
    sources = sorted({found.thresholds_from for found in figures})
    words: dict[str, str] = {
        "validation": "the one of the highest F1 on validation",
        "0.5": "0.5",
    }
    if sources:
        chosen = " or ".join(words[source] for source in sources)
        notes.append(f"F1: the threshold of each finding is {chosen}")
    return notes + ([choices.intervals.explain()] if choices.intervals else [])


def _by_finding(
    task: Task,
    methods: Sequence[Method],
    choices: Choices,
    bounds: dict[str, dict[str, Bounds]],
) -> list[Table]:
    """A table for each of ``FIGURES``: findings are rows, methods columns."""
    methods = [method for method in methods if method.by_backbone]
    first = _figures_of(methods[0]) if methods else None
    if first is None:
        return []
    tables = []
    for heading, name_of in FIGURES:
        headers = ["finding", "positive", "known", *(method.label for method in methods)]
        table = Table(f"{task.title}, {heading} of each finding", headers, [])
        for finding, figures in first.findings.items():
            name = name_of(finding)
            cells = [m.estimate(name, bounds[m.label].get(name), True) for m in methods]
            table.rows.append([finding, figures.positive, figures.known, *cells])
        table.notes += [
            "positive and known: numbers of test images",
            over_what(expected_backbones(run for method in methods for run in method.runs)),
        ]
        tables.append(table)
    return tables


def _figures_of(method: Method) -> FindingMetrics | None:
    runs = [run for runs in method.by_backbone.values() for run in runs]
    return next((run.record.finding_metrics for run in runs), None)


# Intervals


def _bounds(method: Method, choices: Choices, notes: list[str]) -> dict[str, Bounds]:
    """Name of a figure -> (low, high) of a row's estimate; why there are none goes into notes."""
    if choices.intervals is None or not method.by_backbone:
        return {}
    try:
        weighted = _weighted_runs(method)
    except (InputError, ValueError) as error:
        notes.append(f"{method.label}: no interval ({error})")
        return {}
    said = patients_note([[run for run, _, _ in weighted]])
    notes += [note for note in said if note not in notes]
    samples = bootstrap_figures(weighted, choices.intervals.times, choices.intervals.seed)
    return {name: statistics.interval(values) for name, values in samples.items()}


def bootstrap_figures(
    weighted: Sequence[Weighted], times: int = statistics.RESAMPLES, seed: int = 0
) -> dict[str, np.ndarray]:
    """Bootstrap a row's estimates: figure -> ``[times]``, NaN where a resample does not define it.

    Images, or patients with all of their images, are drawn, each for all of the row's runs
    together; thresholds stay as validation chose them.
    """
    clusters = statistics.clusters_of([[run for run, _, _ in weighted]])
    chunks: dict[str, list[np.ndarray]] = defaultdict(list)
    for weights in statistics.resamples(len(weighted[0][0]), times, seed, clusters):
        sums: dict[str, np.ndarray] = {}
        for run, thresholds, share in weighted:
            for name, values in weighted_figures(run, weights, thresholds).items():
                sums[name] = sums.get(name, 0) + share * values
        for name, values in sums.items():
            chunks[name].append(values)
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def _weighted_runs(method: Method) -> list[Weighted]:
    """The runs of a row, their predictions aligned.

    Raises:
        InputError: predictions cannot be read.
        ValueError: the runs are not on the same test images.
    """
    groups = method.by_backbone
    runs = [(run, 1 / len(of) / len(groups)) for of in groups.values() for run in of]
    aligned = align_findings([run.finding_predictions for run, _ in runs])
    found = []
    for (run, share), predictions in zip(runs, aligned, strict=True):
        figures = run.record.finding_metrics
        assert figures is not None  # or it had no predictions
        thresholds = np.array([of.threshold for of in figures.findings.values()])
        found.append((predictions, thresholds, share))
    return found
