"""A run's folder: config.yaml, predictions.csv, answers.csv, its page, and results.json, last."""

import csv
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from core.files import atomic_write
from engine.config import variant_name
from engine.run import versions
from results import predictions
from results.metrics import figures, log_lines
from results.predictions import Predictions
from results.record import write_record
from results.settings import CONFIG
from symptom_generator.transcript import Transcript
from vision_llm.agreement import Agreement, agreements
from vision_llm.asking import ImageAnswers
from vision_llm.page import write_answers_page
from vision_llm.task import NAME, PLACE, Task

ANSWERS, AGREEMENT, PAGE = "answers.csv", "agreement.csv", "answers.html"


def write_config(folder: Path, task: Task) -> None:
    """What the run asks, before it asks: a folder without results.json has not ended."""
    cfg = task.cfg.clone()
    cfg.OUTPUT_DIR = str(folder)
    with atomic_write(folder / CONFIG) as file:
        file.write(cfg.dump())


def write_outcome(
    folder: Path, task: Task, answers: Sequence[ImageAnswers], transcript: Transcript
) -> list[str]:
    """Write what a finished run leaves; returns lines for the user."""
    found = predictions_of(task, answers)
    found.write(folder / predictions.FILE)
    _write_answers(folder / ANSWERS, task, answers)
    agreed = agreements(task.dataset, task.cfg.RUN.DATASET, task.images, answers)
    if agreed:
        _write_agreement(folder / AGREEMENT, agreed)
    measured = figures(found)
    entries = _entries(task, answers, found, measured, transcript)
    write_answers_page(folder / PAGE, task, answers, found, measured, agreed, entries)
    write_record(folder, entries)
    unanswered = sum(each.classes is None for each in answers)
    renormalised = sum(each.classes.renormalised for each in answers if each.classes)
    lines = log_lines(found, measured)
    if unanswered:
        lines.append(
            f"no usable answer for {unanswered} of {len(answers)} images: their probabilities are "
            f"even, which counts as a prediction of {found.classnames[0]}"
        )
    if renormalised:
        lines.append(
            f"probabilities of {renormalised} images did not sum to 1 and were divided by their sum"
        )
    return [*lines, f"Its answers are in {folder / PAGE}", f"Results are in {folder}"]


def predictions_of(task: Task, answers: Sequence[ImageAnswers]) -> Predictions:
    """Probabilities as answered; even ones for an image without a usable answer."""
    classnames = task.settings["classes"]
    even = np.full(len(classnames), 1 / len(classnames))
    rows = [each.classes.probabilities if each.classes else even for each in answers]
    return Predictions.of(task.images, np.array(rows), classnames, task.dataset.positive)


def _entries(
    task: Task,
    answers: Sequence[ImageAnswers],
    found: Predictions,
    measured: dict[str, Any],
    transcript: Transcript,
) -> dict[str, Any]:
    """What results.json says."""
    asked = [line for line in transcript.lines if line["record"] == "exchange"]
    seconds = sum(line.get("seconds", 0.0) for line in asked)
    accepted = [line for line in asked if line["outcome"] == "accepted"]
    names = sorted({line["answered_by"] for line in accepted} - {""})
    return {
        **_identity(task),
        "classnames": found.classnames,
        "positive": found.positive,
        "metrics": measured,
        "seconds": {"test": seconds, "total": seconds},
        "pictures_per_second": len(answers) / max(seconds, 1e-9),
        "trainable_parameters": 0,
        "device": f"endpoint {task.settings['host']}",
        "versions": {
            **versions(),
            "openai": metadata.version("openai"),
            "answered by": ", ".join(names) or task.settings["model"],
        },
        "requests": sum(line.get("requests", 1) for line in asked),
        "unanswered": sum(each.classes is None for each in answers),
    }


def _identity(task: Task) -> dict[str, Any]:
    """What results.json says of the run before anything is asked."""
    cfg, dataset, split = task.cfg, task.dataset, task.settings["split"]
    told = {k: v for k, v in task.options.items() if k != "TRAINER.VISIONLLM.MODEL"}
    return {
        "dataset": cfg.RUN.DATASET,
        "trainer": NAME,
        "backbone": cfg.RUN.BACKBONE,
        "own_model": True,
        "place": PLACE,
        "seeded": False,
        "variant": variant_name(cfg, told),
        "options": {key: str(value) for key, value in task.options.items()},
        "seed": cfg.SEED,
        "split": split,
        "shots": -1,
        "subsample_classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        "class_counts": {
            **dataset.class_counts,
            split: Counter(image.classname for image in task.images),
        },
        "training_split_counts": Counter(image.classname for image in dataset.split["train"]),
        "split_fingerprint": dataset.split_fingerprint,
        "symptom_file": task.symptoms.source,
        "symptom_fingerprint": task.symptoms.fingerprint,
    }


def _write_answers(path: Path, task: Task, answers: Sequence[ImageAnswers]) -> None:
    """One line for each image and sign; ``symptom of`` are the classes that the sign speaks for."""
    owners = {
        sign: " | ".join(name for name, listed in task.symptoms.phrases.items() if sign in listed)
        for each in answers
        for sign in (answer.sign for answer in each.signs)
    }
    with atomic_write(path) as file:
        writer = csv.writer(file)
        header = ["image", "class", "symptom", "answer", "confidence", "symptom of", "outcome"]
        writer.writerow(header)
        for image, each in zip(task.images, answers, strict=True):
            for said in each.signs:
                sure = "" if said.confidence is None else repr(said.confidence)
                row = [image.id, image.classname, said.sign, said.answer, sure]
                writer.writerow([*row, owners[said.sign], each.outcome])


def _write_agreement(path: Path, agreed: Sequence[Agreement]) -> None:
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerow(["symptom", "attribute", "images", "shown", "judged", "agree"])
        for row in agreed:
            counts = [row.images, row.shown, row.judged, row.agree]
            writer.writerow([row.sign, row.attribute, *counts])
