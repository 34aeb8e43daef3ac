"""Everything that finished runs say, gathered for one page."""

import base64
import io
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

from core.errors import InputError
from results.choices import Choices
from results.intervals import Intervals
from results.metrics import METRICS, default_metrics
from results.rows import methods_of, tasks_of
from results.runs import find_runs
from results.tables import KINDS, tables_of

from . import charts, measures
from .pages import write_page
from .paths import value_without_paths, without_paths

CURVES = (("loss", "training loss"), ("val_accuracy", "validation accuracy"))
MOST_LINES = 12  # in one chart
EXPLAINED = 3  # pictures at either end
THUMBNAIL = 224  # pixels of a picture's longer side
PRIVATE = ("OUTPUT_DIR", "RESUME", "DATASET.ROOT")  # they say where, not what


def make_report(folder, output, images=True, root=None, times=2000):
    """Write the report on all runs below ``folder``.

    Args:
        folder: where the runs are. output: the HTML file.
        images: whether pictures of the dataset may be in it.
        root: the folder that holds the datasets; each run's own for ``None``.
        times: bootstrap resamples.

    Returns:
        the file's path.

    Raises:
        InputError: there are no runs.
    """
    skipped = []
    runs = find_runs(folder, say=skipped.append)
    if not runs:
        raise InputError(f"{folder}: no finished runs; train some, or name another folder")

    def bare(text):
        return without_paths(str(text), folder)

    by_task = tasks_of(runs)
    main = {task: main_methods(task_runs) for task, task_runs in by_task.items()}
    groups = table_groups(runs, main, times)
    tasks = [describe_task(task, methods, images, root, bare) for task, methods in main.items()]
    return write_page(
        output,
        "report.html.jinja",
        bare=bare,
        folder=Path(folder).resolve().name,
        written=time.strftime("%d %B %Y, %H:%M"),
        count=len(runs),
        groups=groups,
        tasks=tasks,
        images=images,
        configurations=configurations(runs, folder),
        versions=versions(runs),
        skipped=skipped,
        bins=measures.BINS,
    )


def table_groups(runs, main, times):
    """(heading, tables) of the page's first part, without empty groups."""
    sections = dict.fromkeys(kind.section for kind in KINDS if kind.section)
    groups = {}
    for section in tqdm(sections, desc="tables", leave=False, disable=None, file=sys.stderr):
        metrics = tuple(METRICS) if not groups else default_metrics()
        choices = Choices(metrics, Intervals(metrics, times), beside_paper=True)
        kinds = [kind for kind in KINDS if kind.section == section]
        groups[section] = tables_of(kinds, runs, choices)
        if len(groups) == 1:  # after the results themselves
            groups["Significance"] = significance(main, times)
    return [(title, found) for title, found in groups.items() if found]


def main_methods(runs):
    """The methods that charts show: all but variants of ViP where ViP itself is there."""
    methods = [m for m in methods_of(runs) if m.by_backbone]
    ours = [m for m in methods if m.trainer == "ViP"]
    plain = [m for m in ours if not any(key.startswith("TRAINER.VIP.") for key in m.options)]
    shown = [m for m in methods if m.trainer != "ViP" or not plain or m in plain]
    # ViP comes last in the order of the tables, so a cut takes from the front.
    return shown[-MOST_LINES:]


def significance(main, times):
    """ViP (or the first method with most accuracy) against each other one, a table a task."""
    found = []
    for task, methods in main.items():
        if not methods:  # none of the task's methods applies to its backbones
            continue
        ours = next((m for m in methods if m.trainer == "ViP"), None)
        ours = ours or max(methods, key=lambda m: m.mean("accuracy"))
        others = [m for m in methods if m is not ours]
        try:
            table = measures.significance_table(
                f"{task.title}: {ours.label} against the others", ours, others, times
            )
        except InputError as error:
            print(f"{task.title}: no tests of significance ({error})", file=sys.stderr)
            continue
        if table:
            found.append(table)
    return found


def describe_task(task, methods, images, root, bare):
    """Charts and tables of one dataset and setting; ``bare`` takes paths out of texts."""
    predictions, histories, missing = {}, {}, []
    for method in methods:
        label = bare(method.label)
        try:
            predictions[label] = [p for g in method.prediction_groups().values() for p in g]
        except InputError as error:
            missing.append(str(error))
        read = [measures.read_history(run.folder / "history.csv") for run in method.runs]
        # One epoch is no curve: it is a method that fits at once.
        read = [history for history in read if history and len(history["epoch"]) > 1]
        if read:
            histories[label] = read
    described = {"title": task.title, "missing": missing, "curves": [], "roc": None}
    described |= {"confusion": [], "calibration": [], "tables": [], "explained": None}
    if histories:
        described["curves"] = [
            charts.training_curve(key, title, histories) for key, title in CURVES
        ]
    if not predictions:
        return described
    classnames = next(iter(predictions.values()))[0].classnames
    described["roc"] = charts.roc(predictions)
    described["confusion"] = [
        {"name": name, "classnames": classnames, "rows": _shares(measures.confusion(runs))}
        for name, runs in predictions.items()
    ]
    described["calibration"] = [
        {
            "name": name,
            "error": np.mean([measures.calibration_error(run) for run in runs]),
            "chart": charts.calibration(name, runs),
        }
        for name, runs in predictions.items()
    ]
    described["tables"] = [
        measures.rate_table(f"{task.title}: sensitivity and specificity", predictions),
        measures.calibration_table(f"{task.title}: calibration", predictions),
    ]
    if images:
        described["explained"] = explained_pictures(methods, root)
    return described


def _shares(matrix):
    """Rows of (pictures, share of the row) cells."""
    totals = np.maximum(matrix.sum(axis=1, keepdims=True), 1e-9)
    return [list(zip(*pair, strict=True)) for pair in zip(matrix, matrix / totals, strict=True)]


def explained_pictures(methods, root):
    """The best and the worst explained test pictures of the run of symptoms that validated best.

    A picture is explained well where it is more similar to its true class's symptoms than to the
    other classes', each similarity standardised over the training pictures. The best are among
    those answered rightly, the worst among those answered wrongly.

    Returns:
        {"run", "best", "worst"} with lists of cards; {"reason"} where the run's
        pictures or backbone are not here; None without a run that reads symptoms.
    """
    from explanations.explanation import explain_features
    from explanations.selection import pictures_of_split
    from explanations.standardise import standard
    from trainers import load_run

    runs = [r for m in methods for r in m.runs if r.metrics and r.record.symptom_fingerprint]
    if not runs:
        return None
    trained = [run for run in runs if run.trainer == "ViP"] or runs
    chosen = max(trained, key=lambda run: run.record.validation.accuracy or 0)
    try:
        run = load_run(chosen.folder, root=root)
        pictures = pictures_of_split(run, "test")
        features = run.features("test")
        reference = standard(run)
    except InputError as error:
        return {"reason": str(error)}
    explanation = explain_features(run, features, reference)
    truth = np.array([picture.truth for picture in pictures])
    lead = _lead(explanation, truth)
    right = explanation.prediction == truth
    order = np.argsort(-lead, kind="stable")
    best = [i for i in order if right[i]][:EXPLAINED]
    worst = [i for i in order[::-1] if not right[i]][:EXPLAINED]
    return {
        "run": run.name,
        "best": [_card(explanation, pictures, i) for i in best],
        "worst": [_card(explanation, pictures, i) for i in worst],
    }


def _lead(explanation, truth):
    """[n] mean similarity to the true class's symptoms less the greatest of the other classes'."""
    scores = explanation.standardised
    scores = explanation.parts.similarity if scores is None else scores
    means = np.nanmean(scores, axis=2)  # [n, K]
    rows = np.arange(len(truth))
    others = means.copy()
    others[rows, truth] = -np.inf
    return means[rows, truth] - others.max(axis=1)


def _card(explanation, pictures, i):
    """A small picture and what stands beside it."""
    from datasets.pictures import read_picture
    from explanations.drawing import class_colour, shown_classes, verdict

    picture = pictures[i]
    image = read_picture(picture.path)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=88)
    data = base64.b64encode(stream.getvalue()).decode()
    standardised = explanation.standardised is not None
    scores = explanation.standardised if standardised else explanation.parts.similarity
    shown = shown_classes(explanation, i, picture.truth)
    reach = float(np.nanmax(np.abs(scores[i, shown]), initial=1e-9))
    classes = []
    for c in shown:
        name = explanation.classnames[c]
        rows = [
            {
                "symptom": phrase,
                "score": f"{scores[i, c, j]:+.1f}" if standardised else f"{scores[i, c, j]:.3f}",
                "width": 50 * abs(scores[i, c, j]) / reach,
                "left": 50 - 50 * max(0, -scores[i, c, j]) / reach,
                "contribution": f"{explanation.parts.symptom[i, c, j]:+.1f}",
            }
            for j, phrase in enumerate(explanation.phrases[name])
        ]
        classes.append(
            {
                "name": name,
                "probability": 100 * explanation.probabilities[i, c],
                "colour": class_colour(c),
                "rows": rows,
            }
        )
    return {
        "data": f"data:image/jpeg;base64,{data}",
        "size": image.size,
        "verdict": verdict(explanation, i, picture.truth),
        "outcome": "good" if explanation.prediction[i] == picture.truth else "bad",
        "classes": classes,
    }


def configurations(runs, folder):
    """(title, YAML) of one run of each method and dataset, without the machine's paths."""
    found = {}
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
                found[title] = yaml.safe_dump(_nested(kept), sort_keys=False)
    return list(found.items())


def _nested(flat):
    tree = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def versions(runs):
    """(what, [(value, number of runs)]) of versions, devices, precisions, splits and symptoms."""
    counts = defaultdict(lambda: defaultdict(int))
    for run in runs:
        record = run.record
        for name, version in record.versions.items():
            counts[name][version] += 1
        for key in ("device", "precision"):
            if value := getattr(record, key):
                counts[key][value] += 1
        for key in ("split_fingerprint", "symptom_fingerprint"):
            if value := getattr(record, key):
                name = f"{key.split('_')[0]} of {run.dataset}"
                counts[name][value] += 1
    return [(name, sorted(values.items())) for name, values in counts.items()]
