"""One page of what the model answered: each sign by class, and images with their answers."""

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.dicom import rendering_of
from datasets.pictures import read_picture
from reporting.pages import write_page
from results.predictions import Predictions
from symptom_generator.montage import jpeg
from vision_llm.agreement import Agreement
from vision_llm.asking import ImageAnswers, signs_of
from vision_llm.questions import ABSENT, NO_ANSWER, PRESENT, UNCLEAR
from vision_llm.task import Task

SHOWN = 30  # images at most of those predicted incorrectly, and of the others
THUMBNAIL = 224  # pixels of an image's longer side
ANSWERS = (PRESENT, ABSENT, UNCLEAR, NO_ANSWER)


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
    wrong = [i for i, correct in enumerate(found.correct) if not correct]
    right = [i for i, correct in enumerate(found.correct) if correct]
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
            (
                "Predicted incorrectly",
                len(wrong),
                [_card(task, answers, found, i) for i in wrong[:SHOWN]],
            ),
            (
                "Predicted correctly",
                len(right),
                [_card(task, answers, found, i) for i in right[:SHOWN]],
            ),
        ],
    )


def _signs(task: Task, answers: Sequence[ImageAnswers]) -> list[dict[str, Any]]:
    """For each sign: the classes it speaks for, and its answers by true class."""
    rows = []
    for sign in signs_of(task.symptoms.phrases):
        counts: dict[str, Counter[str]] = {name: Counter() for name in task.settings["classes"]}
        for image, each in zip(task.images, answers, strict=True):
            for said in each.signs:
                if said.sign == sign:
                    counts[image.classname][said.answer] += 1
        owners = [name for name, listed in task.symptoms.phrases.items() if sign in listed]
        rows.append({"sign": sign, "owners": ", ".join(owners), "counts": counts})
    return rows


def _card(
    task: Task, answers: Sequence[ImageAnswers], found: Predictions, i: int
) -> dict[str, Any]:
    image = task.images[i]
    picture = read_picture(image.impath, rendering=rendering_of(task.cfg.DATASET))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return {
        "id": image.id,
        "data": "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode(),
        "size": picture.size,
        "truth": image.classname,
        "predicted": found.classnames[found.predicted[i]],
        "correct": bool(found.correct[i]),
        "probabilities": list(zip(found.classnames, found.probabilities[i].tolist(), strict=True)),
        "signs": answers[i].signs,
        "outcome": answers[i].outcome,
        "answered": answers[i].classes is not None,
    }
