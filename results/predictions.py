"""Predictions of one run on the images of a split, and the CSV file that holds them."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError
from core.files import atomic_write

FILE = "predictions.csv"
VALIDATION_FILE = "predictions_val.csv"  # the same of the validation images
ROW_SUM = 1e-3  # how far from 1 a row of probabilities in a file may sum


@dataclass(frozen=True)
class Predictions:
    """One run's predictions, in the order of ``images``.

    Attributes:
        images: ``[n]`` str, what tells the images apart.
        labels: ``[n]`` int, indices into ``classnames``.
        predicted: ``[n]`` int.
        probabilities: ``[n, n_cls]`` float.
        subtypes: ``[n]`` str, "" where none is known; or empty.
        groups: ``[n]`` str, equal for images of one patient, "" where the patient is not known; or
            empty, where none is. Never the patient's identifier.
        positive: the positive class by name, None where the dataset names none.

    Raises:
        InputError: a probability is NaN, infinite, or not between 0 and 1.
    """

    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    classnames: tuple[str, ...]
    subtypes: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))
    positive: str | None = None
    groups: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))

    def __post_init__(self) -> None:
        p = self.probabilities
        wrong = np.flatnonzero(~((p >= -1e-9) & (p <= 1 + 1e-9)).all(axis=1))  # NaN is neither
        if len(wrong):
            row = wrong[0]
            raise InputError(
                f"{len(wrong)} of {len(p)} images have probabilities that are not between 0 and 1, "
                f"the first is {self.images[row]}: {', '.join(f'{x:g}' for x in p[row][:4])}"
            )

    @classmethod
    def of(
        cls,
        images: Sequence[Any],
        probabilities: np.ndarray,
        classnames: Iterable[str],
        positive: str | None = None,
    ) -> "Predictions":
        """Predictions on a dataset's images: objects with id, label, subtype and patient."""
        return cls(
            np.array([image.id for image in images]),
            np.array([image.label for image in images]),
            probabilities.argmax(axis=1),
            probabilities,
            tuple(classnames),
            np.array([image.subtype for image in images]),
            positive or None,
            anonymous_groups([image.patient for image in images]),
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def correct(self) -> np.ndarray:
        """``[n]`` bool."""
        return self.labels == self.predicted

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    def take(self, index: np.ndarray) -> "Predictions":
        """The same run on some of its images."""
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            predicted=self.predicted[index],
            probabilities=self.probabilities[index],
            subtypes=self.subtypes[index] if len(self.subtypes) else self.subtypes,
            groups=self.groups[index] if len(self.groups) else self.groups,
        )

    def write(self, path: Path | str) -> None:
        """Write a CSV file: picture (the image), label, prediction, p(class)..., subtype.

        Where patients are known, a last column ``group`` tells which images are of one patient.
        """
        names, grouped = self.classnames, len(self.groups) > 0
        subtypes = self.subtypes if len(self.subtypes) else [""] * len(self)
        groups = self.groups if grouped else [""] * len(self)
        with atomic_write(path) as file:
            writer = csv.writer(file)
            columns = [f"p({name})" for name in names]
            last = ["group"] if grouped else []
            writer.writerow(["picture", "label", "prediction", *columns, "subtype", *last])
            for image, label, predicted, row, subtype, group in zip(
                self.images,
                self.labels,
                self.predicted,
                self.probabilities,
                subtypes,
                groups,
                strict=True,
            ):
                values = [repr(float(p)) for p in row]
                last = [group] if grouped else []
                writer.writerow([image, names[label], names[predicted], *values, subtype, *last])


def anonymous_groups(patients: Sequence[str]) -> np.ndarray:
    """``[n]`` str: a number for each patient in the order of appearance, "" for an unknown one.

    Empty where no patient is known. A patient's identifier does not leave the program this way.
    """
    if not any(patients):
        return np.array([], dtype=str)
    numbers: dict[str, str] = {"": ""}
    return np.array([numbers.setdefault(patient, str(len(numbers))) for patient in patients])


def read_predictions(
    path: Path | str, classnames: Sequence[str], positive: str | None = None
) -> Predictions:
    """The predictions in a run's predictions.csv.

    Raises:
        InputError: the file is missing, damaged or of other classes; names the file.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return _from_rows(csv.DictReader(file), tuple(classnames), positive)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except KeyError as error:
        raise InputError(f"{path}: damaged or of another format (no {error})") from None
    except (ValueError, TypeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: damaged or of another format ({reason})") from None


def _from_rows(
    rows: Iterable[dict[str, str]], classnames: tuple[str, ...], positive: str | None
) -> Predictions:
    index = {name: i for i, name in enumerate(classnames)}
    images, labels, predicted, probabilities, subtypes, groups = [], [], [], [], [], []
    for row in rows:
        images.append(row["picture"])
        labels.append(index[row["label"]])
        predicted.append(index[row["prediction"]])
        probabilities.append([float(row[f"p({name})"]) for name in classnames])
        subtypes.append(row.get("subtype") or "")
        groups.append(row.get("group") or "")
    if not images:
        raise ValueError("it has no images")
    if len(set(images)) != len(images):
        raise ValueError("an image appears twice")
    predictions = Predictions(
        np.array(images),
        np.array(labels),
        np.array(predicted),
        np.array(probabilities),
        classnames,
        np.array(subtypes),
        positive,
        np.array(groups if any(groups) else [], dtype=str),
    )
    sums = predictions.probabilities.sum(axis=1)
    if wrong := np.flatnonzero(np.abs(sums - 1) > ROW_SUM).tolist():
        raise ValueError(f"the probabilities of {images[wrong[0]]} sum to {sums[wrong[0]]:g}")
    return predictions


def align(predictions: Sequence[Predictions]) -> list[Predictions]:
    """Put runs in one order of images.

    Raises:
        ValueError: they are not on the same images with the same labels.
    """
    aligned = [run.take(np.argsort(run.images, kind="stable")) for run in predictions]
    first = aligned[0]
    for run in aligned[1:]:
        if not np.array_equal(run.images, first.images):
            differ = len(set(run.images) ^ set(first.images))
            raise ValueError(f"{differ} test images are in only one of the two runs")
        if run.classnames != first.classnames or not np.array_equal(run.labels, first.labels):
            raise ValueError("the same test images have other labels in the two runs")
    return aligned
