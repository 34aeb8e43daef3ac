"""Best and worst explained test images of the run that validated best."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.colours import series_colour
from core.errors import InputError
from datasets.pictures import read_picture
from engine.loading import LoadedRun
from explanations.drawing import shown_classes, verdict
from explanations.drift import meaning_drift, warning
from explanations.explanation import Explanation, explain_features
from explanations.selection import Chosen, pictures_of_split
from explanations.standardise import standard
from results.rendering import Estimate, Table
from results.rows import Method
from results.runs import Run
from trainers import load_run

SHOWN = 3  # images at either end
THUMBNAIL = 224  # pixels of an image's longer side
MEANING = (
    "rank correlation: Spearman's, over the training images, of the similarities to the untrained "
    "and to the trained symptom [95 % interval]; kept: the interval lies above .8; weakened: above "
    ".5; reversed: below -.5; lost: anywhere else"
)


def explained_images(methods: Sequence[Method], root: str | Path | None) -> dict[str, Any] | None:
    """The best and the worst explained test images of one run that reads symptoms.

    An image is explained well if it is more similar to its true class's symptoms than to those of
    the other classes, each similarity standardised over the training images. The best are among
    the correctly classified images, the worst among the others.

    Args:
        root: the folder that holds the datasets; the run's own for ``None``.

    Returns:
        {"run", "drift", "best", "worst"} with the table of ``drift_table`` and lists of cards;
        {"reason"} if the run's images or its backbone are missing; None if no run reads symptoms.
    """
    chosen = _best_validated(methods)
    if chosen is None:
        return None
    try:
        run = load_run(chosen.folder, root=root)
        images = pictures_of_split(run, "test")
        explanation = explain_features(run, run.features("test"), standard(run))
        truth = np.array([image.truth for image in images])
        correct = explanation.prediction == truth
        order = np.argsort(-_lead(explanation, truth), kind="stable")
        return {
            "run": run.name,
            "drift": drift_table(run),
            "best": [_card(explanation, images, i) for i in order[correct[order]][:SHOWN]],
            "worst": [_card(explanation, images, i) for i in order[~correct[order]][::-1][:SHOWN]],
        }
    except InputError as error:
        return {"reason": str(error)}


def drift_table(run: LoadedRun) -> Table | None:
    """What each symptom still means; None if the training images are missing."""
    records = meaning_drift(run)
    if records is None:
        return None
    headers = [
        "class",
        "symptom",
        "meaning",
        "rank correlation",
        "attribute AUC untrained",
        "trained",
    ]
    table = Table(f"{run.name}: what symptoms mean after training", headers, [], text_columns=3)
    for record in records:
        interval = Estimate(record.correlation, None, record.low, record.high)
        area = next(iter(record.attributes), None)
        before, after = (area.before, area.after) if area else (None, None)
        areas = [Estimate(own[0], None, *own[1:]) if own else None for own in (before, after)]
        table.rows.append([record.classname, record.symptom, record.verdict, interval, *areas])
    table.notes += [text for text in (warning(records), MEANING) if text]
    return table


def _best_validated(methods: Sequence[Method]) -> Run | None:
    runs = [r for m in methods for r in m.runs if r.metrics and r.record.symptom_fingerprint]
    trained = [run for run in runs if run.trainer == "ViP"] or runs
    return max(trained, key=_validation_accuracy, default=None)


def _validation_accuracy(run: Run) -> float:
    return run.record.validation.accuracy or 0


def _lead(explanation: Explanation, truth: np.ndarray) -> np.ndarray:
    """[n] mean similarity to the true class's symptoms minus the greatest of the other classes'."""
    means = np.nanmean(explanation.scores, axis=2)  # [n, K]
    rows = np.arange(len(truth))
    others = means.copy()
    others[rows, truth] = -np.inf
    return means[rows, truth] - others.max(axis=1)


def _card(explanation: Explanation, images: Sequence[Chosen], i: int) -> dict[str, Any]:
    """A small image and the text beside it."""
    truth = images[i].truth
    data, size = _thumbnail(images[i].path)
    shown = shown_classes(explanation, i, truth)
    reach = float(np.nanmax(np.abs(explanation.scores[i, shown]), initial=1e-9))
    return {
        "data": data,
        "size": size,
        "verdict": verdict(explanation, i, truth),
        "outcome": "good" if explanation.prediction[i] == truth else "bad",
        "classes": [
            {
                "name": explanation.classnames[c],
                "probability": 100 * explanation.probabilities[i, c],
                "colour": series_colour(c),
                "rows": _bars(explanation, i, c, reach),
            }
            for c in shown
        ],
    }


def _thumbnail(path: Path) -> tuple[str, tuple[int, int]]:
    """An image as data: address, small, and its size."""
    image = read_picture(path)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=88)
    data = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/jpeg;base64,{data}", image.size


def _bars(explanation: Explanation, i: int, c: int, reach: float) -> list[dict[str, Any]]:
    """A bar for each symptom of class ``c``; ``reach`` is the similarity of the longest bar."""
    form = "{:.3f}" if explanation.standardised is None else "{:+.1f}"
    rows = []
    for j, phrase in enumerate(explanation.phrases[explanation.classnames[c]]):
        # A symptom that is the same in all training images has no standardised similarity.
        score = float(np.nan_to_num(explanation.scores[i, c, j]))
        rows.append(
            {
                "symptom": phrase,
                "score": form.format(score),
                "width": 50 * abs(score) / reach,  # per cent of the cell; zero is in its middle
                "left": 50 - 50 * max(0.0, -score) / reach,
                "contribution": f"{explanation.parts.symptom[i, c, j]:+.1f}",
            }
        )
    return rows
