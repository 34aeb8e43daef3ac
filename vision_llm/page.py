"""One page of what the model answered: each sign by class, and images with their answers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.dicom import rendering_of
from reporting.pages import thumbnail, write_page
from results.predictions import Predictions
from vision_llm.agreement import Agreement
from vision_llm.asking import ImageAnswers, signs_of
from vision_llm.questions import ABSENT, NO_ANSWER, PRESENT, UNCLEAR
from vision_llm.task import Task

SHOWN = 30  # images at most of those predicted incorrectly, and of the others
ANSWERS = (PRESENT, ABSENT, UNCLEAR)


def write_answers_page(
    path: Path,
    task: Task,
    answers: Sequence[ImageAnswers],
    found: Predictions,
    measured: dict[str, Any],
    agreed: Sequence[Agreement],
    entries: dict[str, Any],
) -> Path:
    """Write one HTML file that needs nothing else: no script, no network.

    Args:
        found: the predictions. measured: their metrics. entries: of results.json.
    """
    places = {
        "Predicted incorrectly": np.flatnonzero(~found.correct),
        "Predicted correctly": np.flatnonzero(found.correct),
    }
    return write_page(
        path,
        "vision_llm.html.jinja",
        settings=task.settings,
        dataset=task.cfg.RUN.DATASET,
        entries=entries,
        measured=measured,
        count=len(answers),
        renormalised=sum(each.classes.renormalised for each in answers if each.classes),
        signs=_signs(task, answers),
        kinds=ANSWERS,
        agreed=agreed,
        groups=[
            (title, len(of), [_card(task, answers, found, int(i)) for i in of[:SHOWN]])
            for title, of in places.items()
        ],
    )


def _signs(task: Task, answers: Sequence[ImageAnswers]) -> list[dict[str, Any]]:
    """For each sign: the classes it speaks for, and how often each of ``ANSWERS`` by true class."""
    counts = Counter(
        (said.sign, image.classname, said.answer)
        for image, each in zip(task.images, answers, strict=True)
        for said in each.signs
    )
    phrases, classes = task.symptoms.phrases, task.settings["classes"]
    return [
        {
            "sign": sign,
            "owners": ", ".join(name for name in classes if sign in phrases[name]),
            "counts": {name: [counts[sign, name, kind] for kind in ANSWERS] for name in classes},
            "unanswered": sum(counts[sign, name, NO_ANSWER] for name in classes),
        }
        for sign in signs_of(phrases)
    ]


def _card(
    task: Task, answers: Sequence[ImageAnswers], found: Predictions, i: int
) -> dict[str, Any]:
    image = task.images[i]
    data, size = thumbnail(image.impath, rendering_of(task.cfg.DATASET))
    return {
        "id": image.id,
        "data": data,
        "size": size,
        "truth": image.classname,
        "predicted": found.classnames[found.predicted[i]],
        "correct": bool(found.correct[i]),
        "probabilities": list(zip(found.classnames, found.probabilities[i].tolist(), strict=True)),
        "signs": answers[i].signs,
        "outcome": answers[i].outcome,
        "answered": answers[i].classes is not None,
    }
