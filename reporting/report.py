"""All results of finished runs, gathered for one page."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from core.errors import InputError
from engine.method import METHODS
from results.choices import Choices
from results.intervals import Intervals
from results.metrics import METRICS, default_metrics
from results.paper import VIP, read_paper
from results.predictions import Predictions
from results.rendering import Table
from results.rows import Method, Task, methods_of, tasks_of
from results.runs import Run, find_runs
from results.tables import KINDS, tables_of

from . import charts, measures
from .explained import explained_images
from .pages import write_page
from .paths import app_command, value_without_paths, without_paths

CURVES = (("loss", "training loss"), ("val_accuracy", "validation accuracy"))
MOST_LINES = 12  # in one chart; more could not be told apart
PRIVATE = ("OUTPUT_DIR", "RESUME", "DATASET.ROOT")  # they say where, not what


def make_report(
    folder: str | Path,
    output: str | Path,
    images: bool = True,
    root: str | Path | None = None,
    times: int = 2000,
) -> Path:
    """Write the report on all runs below ``folder``.

    Args:
        output: the HTML file.
        images: whether images of the dataset may be in it.
        root: the folder that holds the datasets; each run's own for ``None``.
        times: bootstrap resamples.

    Returns:
        the file's path.

    Raises:
        InputError: there are no runs.
    """
    skipped: list[str] = []
    runs = find_runs(folder, say=skipped.append)
    if not runs:
        raise InputError(f"{folder}: no finished runs; train some, or name another folder")

    def bare(text: object) -> str:
        return without_paths(str(text), folder)

    one_class = [run for run in runs if not run.multi_label]  # what the charts are defined for
    methods = {task: main_methods(own) for task, own in tasks_of(one_class).items()}
    return write_page(
        output,
        "report.html.jinja",
        bare=bare,
        app_command=lambda run: app_command(run, folder),
        folder=Path(folder).resolve().name,
        written=time.strftime("%d %B %Y, %H:%M"),
        count=len(runs),
        groups=table_groups(runs, methods, times),
        tasks=[describe_task(task, own, images, root, bare) for task, own in methods.items()],
        images=images,
        configurations=configurations(runs, folder),
        versions=versions(runs),
        skipped=skipped,
        bins=measures.BINS,
    )


def table_groups(
    runs: Sequence[Run], methods: Mapping[Task, Sequence[Method]], times: int
) -> list[tuple[str, list[Table]]]:
    """(heading, tables) of the page's first part, without empty groups."""
    sections = dict.fromkeys(kind.section for kind in KINDS if kind.section)
    groups: dict[str, list[Table]] = {}
    for section in tqdm(sections, desc="tables", leave=False, disable=None, file=sys.stderr):
        metrics = tuple(METRICS) if not groups else default_metrics()
        choices = Choices(metrics, Intervals(metrics, times), papers=[read_paper(VIP)])
        kinds = [kind for kind in KINDS if kind.section == section]
        groups[section] = tables_of(kinds, list(runs), choices)
        if len(groups) == 1:  # after the results themselves
            groups["Significance"] = significance(methods, times)
    return [(title, found) for title, found in groups.items() if found]


def main_methods(runs: Sequence[Run]) -> list[Method]:
    """The methods that are compared: all, but of ViP no variants if ViP itself is there."""
    methods = [m for m in methods_of(runs) if m.by_backbone]
    ours = [m for m in methods if m.trainer == "ViP"]
    default = [m for m in ours if not any(key.startswith("TRAINER.VIP.") for key in m.options)]
    return [m for m in methods if m.trainer != "ViP" or not default or m in default]


def significance(methods: Mapping[Task, Sequence[Method]], times: int) -> list[Table]:
    """ViP (or the most accurate method) against each other method, one table per task."""
    found = []
    for task, own in methods.items():
        if not own:  # none of the task's methods applies to its backbones
            continue
        ours = next((m for m in own if m.trainer == "ViP"), None)
        ours = ours or max(own, key=lambda m: m.mean("accuracy"))
        others = [m for m in own if m is not ours]
        title = f"{task.title}: {ours.label} against the others"
        try:
            table = measures.significance_table(title, ours, others, times)
        except InputError as error:
            print(f"{task.title}: no tests of significance ({error})", file=sys.stderr)
            continue
        if table:
            found.append(table)
    return found


def describe_task(
    task: Task,
    methods: Sequence[Method],
    images: bool,
    root: str | Path | None,
    bare: Callable[[object], str],
) -> dict[str, Any]:
    """Charts and tables of one dataset and setting; ``bare`` takes paths out of texts."""
    # ViP comes last in the order of the tables, so a cut takes from the front.
    left, methods = methods[:-MOST_LINES], methods[-MOST_LINES:]
    predictions, missing = _predictions(methods, bare)
    if left:
        names = ", ".join(method.label for method in left)
        missing = [f"{names} (a chart has {MOST_LINES} methods at most)", *missing]
    described: dict[str, Any] = {
        "title": task.title,
        "missing": missing,
        "curves": training_curves(methods, bare),
        "roc": None,
        "confusion": [],
        "tables": [],
        "calibration": [],
        "explained": None,
    }
    if predictions:
        described |= describe_predictions(task, predictions)
        if images:
            described["explained"] = explained_images(methods, root)
    return described


def _predictions(
    methods: Sequence[Method], bare: Callable[[object], str]
) -> tuple[dict[str, list[Predictions]], list[str]]:
    """Label -> the predictions of a method's runs, and why those of a method cannot be read."""
    predictions, missing = {}, []
    for method in methods:
        try:
            groups = method.prediction_groups()
        except InputError as error:
            missing.append(str(error))
        else:
            predictions[bare(method.label)] = [run for runs in groups.values() for run in runs]
    return predictions, missing


def training_curves(methods: Sequence[Method], bare: Callable[[object], str]) -> list[Any]:
    """Charts of loss and validation accuracy by epoch."""
    histories = {}
    for method in methods:
        read = [measures.read_history(run.folder / "history.csv") for run in method.runs]
        # A single epoch is not a curve: the method fits at once.
        read = [history for history in read if history and len(history["epoch"]) > 1]
        if read:
            histories[bare(method.label)] = read
    if not histories:
        return []
    return [charts.training_curve(key, title, histories) for key, title in CURVES]


def describe_predictions(
    task: Task, predictions: Mapping[str, list[Predictions]]
) -> dict[str, Any]:
    """Confusion matrices, ROC, rates and calibration of the methods of one task."""
    classnames = next(iter(predictions.values()))[0].classnames
    return {
        "roc": charts.roc(predictions),
        "confusion": [
            {"name": name, "classnames": classnames, "rows": _shares(measures.confusion(runs))}
            for name, runs in predictions.items()
        ],
        "tables": [
            measures.rate_table(f"{task.title}: sensitivity and specificity", predictions),
            measures.calibration_table(f"{task.title}: calibration", predictions),
        ],
        "calibration": [
            {
                "name": name,
                "error": np.mean([measures.calibration_error(run) for run in runs]),
                "chart": charts.calibration(name, runs),
            }
            for name, runs in predictions.items()
        ],
    }


def _shares(matrix: np.ndarray) -> list[list[tuple[float, float]]]:
    """Rows of (images, share of the row) cells."""
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1e-9)
    return [list(zip(*pair, strict=True)) for pair in zip(matrix, matrix / totals, strict=True)]


def configurations(runs: Sequence[Run], folder: str | Path) -> list[tuple[str, str, str]]:
    """(title, command, YAML) of one run of each method and dataset, without the machine's paths.

    The command opens the run in a browser; it is empty where app.py does not show such runs.
    """
    found: dict[str, tuple[str, str]] = {}
    for task, task_runs in tasks_of(runs).items():
        for method in methods_of(task_runs):
            first = method.runs[0]
            if first.config:
                kept = {
                    key: value_without_paths(value, folder)
                    for key, value in first.config.items()
                    if key not in PRIVATE
                }
                title = f"{task.title}: {method.label}, {first.backbone}, seed {first.seed}"
                shown = first.trainer in METHODS and not first.multi_label
                command = app_command(first.folder, folder) if shown else ""
                found[title] = command, yaml.safe_dump(_nested(kept), sort_keys=False)
    return [(title, *entry) for title, entry in found.items()]


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def versions(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, int]]]]:
    """(what, [(value, number of runs)]) of versions, devices, precisions, splits and symptoms."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for run in runs:
        record = run.record
        for name, version in record.versions.items():
            counts[name][version] += 1
        for key in ("device", "precision"):
            if value := getattr(record, key):
                counts[key][value] += 1
        for key, what in (("split_fingerprint", "split"), ("symptom_fingerprint", "symptoms")):
            if value := getattr(record, key):
                counts[f"fingerprint of the {what} of {run.dataset}"][value] += 1
    return [(name, sorted(values.items())) for name, values in counts.items()]
