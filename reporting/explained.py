"""Best and worst explained test images of the run that validated best."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError
from engine.loading import LoadedRun
from engine.method import METHODS
from explanations.explanation import Explanation, explain_features
from explanations.reference import reference_of
from explanations.reliability import reliability
from explanations.selection import Chosen, balanced, pictures_of_split
from explanations.wording import verdict
from results.rows import Method
from results.runs import Run
from trainers import load_run

from .drift import drift_table
from .explanation_items import Places, evidence, warned, warning_of
from .pages import thumbnail

SHOWN = 4  # images at either end, from the classes in turn


def explained_images(methods: Sequence[Method], root: str | Path | None) -> dict[str, Any] | None:
    """The best and the worst explained test images of one explainable run.

    An image is explained well if the evidence of its true class's symptoms is far above that of any
    other class's. The best are among the correctly classified images, the worst among the others;
    each true class has its turn.

    Args:
        root: the folder that holds the datasets; the run's own for ``None``.

    Returns:
        {"run", "folder", "warning", "drift", "best", "worst"}: a sentence on the symptoms that lost
        their meaning, or None; the table of ``drift_table``; lists of cards. {"reason"} if the
        run's images, also those of training, or its backbone are missing; None if no run is
        explainable.
    """
    chosen = _best_validated(methods)
    if chosen is None:
        return None
    try:
        run = load_run(chosen.folder, root=root)
        images = pictures_of_split(run, "test")
        explanation = explain_features(run, run.features("test"), reference_of(run))
        truth = np.array([image.truth for image in images])
        correct = explanation.prediction == truth
        known = reliability([run])
        order = np.argsort(-_lead(explanation, truth), kind="stable")
        best, worst = order[correct[order]].tolist(), order[~correct[order]][::-1].tolist()
        cards = (
            [_card(run, explanation, images, i, known) for i in balanced(end, truth, SHOWN)]
            for end in (best, worst)
        )
        return {
            "run": run.name,
            "folder": chosen.folder,
            "warning": warning_of(known),
            "drift": drift_table(run.name, known),
            **dict(zip(("best", "worst"), cards, strict=True)),
        }
    except InputError as error:
        return {"reason": str(error)}


def _best_validated(methods: Sequence[Method]) -> Run | None:
    """The explainable run with the best validation accuracy; of ViP's, where there are any."""
    runs = [
        run
        for method in methods
        for run in method.runs
        if run.metrics and run.record.symptom_fingerprint and _is_explainable(run.trainer)
    ]
    trained = [run for run in runs if run.trainer == "ViP"] or runs
    return max(trained, key=_validation_accuracy, default=None)


def _is_explainable(trainer: str) -> bool:
    return trainer in METHODS and METHODS[trainer].explainable


def _validation_accuracy(run: Run) -> float:
    return run.record.validation.accuracy or 0


def _lead(explanation: Explanation, truth: np.ndarray) -> np.ndarray:
    """[n] evidence of the true class's symptoms minus the greatest of the other classes'."""
    if explanation.evidence is None:
        raise InputError("the training images are missing")
    sums = explanation.evidence.symptom.sum(axis=2)  # [n, K]
    rows = np.arange(len(truth))
    others = sums.copy()
    others[rows, truth] = -np.inf
    return sums[rows, truth] - others.max(axis=1)


def _card(
    run: LoadedRun, explanation: Explanation, images: Sequence[Chosen], i: int, known: Places
) -> dict[str, Any]:
    """A small image and the text beside it."""
    truth = images[i].truth
    found = evidence(explanation, i, known)
    for bar in found["bars"] if found else ():  # the table above the cards has the rest
        bar["trust"] = [text for text in bar["trust"] if bar["lost"] and text.startswith("meaning")]
    data, size = thumbnail(run.opened(images[i].path))
    return {
        "data": data,
        "size": size,
        "truth": explanation.classnames[truth] if truth is not None else "",
        "verdict": verdict(explanation, i, truth),
        "outcome": "good" if explanation.prediction[i] == truth else "bad",
        "warning": warned(explanation, i, known),
        "evidence": found,
    }
