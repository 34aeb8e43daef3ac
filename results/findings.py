"""Predictions of several findings an image, their file, and what is computed from them.

A label is 1, 0 or NaN for unknown. What is unknown enters no figure, and a finding that the images
have only one value of has no figures and does not enter a mean over findings.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError
from core.files import atomic_write
from results.metrics import weighted_area
from results.predictions import anonymous_groups

DEFAULT_THRESHOLD = 0.5
VALUES = {"1": 1.0, "0": 0.0, "": np.nan}  # of a label in a file
MACRO = {"macro_auroc": "macro AUROC", "macro_f1": "macro F1"}  # name -> heading


@dataclass(frozen=True)
class FindingPredictions:
    """One run's predictions, in the order of ``images``.

    Attributes:
        images: ``[n]`` str, what tells the images apart.
        labels: ``[n, F]`` of 1, 0 and NaN for unknown.
        probabilities: ``[n, F]``.
        findings: the F names.
        groups: ``[n]`` str, as of ``Predictions``: which images are of one patient; or empty.
    """

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    findings: tuple[str, ...]
    groups: np.ndarray = field(default_factory=lambda: np.array([], dtype=str))

    @classmethod
    def of(
        cls, images: Sequence[Any], probabilities: np.ndarray, findings: Iterable[str]
    ) -> "FindingPredictions":
        """Predictions on a dataset's images, objects with ``id``, ``label`` and ``patient``."""
        return cls(
            np.array([image.id for image in images]),
            np.array([image.label for image in images], dtype=float),
            probabilities,
            tuple(findings),
            anonymous_groups([image.patient for image in images]),
        )

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> "FindingPredictions":
        """The same run on some of its images."""
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            probabilities=self.probabilities[index],
            groups=self.groups[index] if len(self.groups) else self.groups,
        )

    def write(self, path: Path | str) -> None:
        """Write predictions.csv: picture (the image), label(finding)..., p(finding)...

        The cell of an unknown label is empty. Where patients are known, a last column ``group``
        tells which images are of one patient.
        """
        columns = [*_columns("label", self.findings), *_columns("p", self.findings)]
        groups = [[group] for group in self.groups] or [[]] * len(self)
        with atomic_write(path) as file:
            writer = csv.writer(file)
            writer.writerow(["picture", *columns, *(["group"] if len(self.groups) else [])])
            for image, label, row, group in zip(
                self.images, self.labels, self.probabilities, groups, strict=True
            ):
                known = ["" if np.isnan(value) else str(int(value)) for value in label]
                writer.writerow([image, *known, *(repr(float(p)) for p in row), *group])


def _columns(kind: str, findings: Sequence[str]) -> list[str]:
    return [f"{kind}({name})" for name in findings]


def read_finding_predictions(path: Path | str, findings: Sequence[str]) -> FindingPredictions:
    """The predictions in the predictions.csv of a run with several findings an image.

    Raises:
        InputError: the file is missing, damaged or of other findings; names the file.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return _from_rows(csv.DictReader(file), tuple(findings))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except KeyError as error:
        raise InputError(f"{path}: damaged or of another format (no {error})") from None
    except (ValueError, TypeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: damaged or of another format ({reason})") from None


def _from_rows(rows: Iterable[dict[str, str]], findings: tuple[str, ...]) -> FindingPredictions:
    labels, probabilities = _columns("label", findings), _columns("p", findings)
    listed = list(rows)
    images = [row["picture"] for row in listed]
    if not images:
        raise ValueError("it has no images")
    if len(set(images)) != len(images):
        raise ValueError("an image appears twice")
    found = FindingPredictions(
        np.array(images),
        np.array([[VALUES[row[column]] for column in labels] for row in listed]),
        np.array([[float(row[column]) for column in probabilities] for row in listed]),
        findings,
        np.array([row["group"] for row in listed if "group" in row], dtype=str),
    )
    p = found.probabilities
    if wrong := np.flatnonzero(~((p >= 0) & (p <= 1)).all(axis=1)).tolist():  # NaN is neither
        raise ValueError(f"a probability of {images[wrong[0]]} is not between 0 and 1")
    return found


def align_findings(runs: Sequence[FindingPredictions]) -> list[FindingPredictions]:
    """Put runs in one order of images.

    Raises:
        ValueError: they are not on the same images with the same labels.
    """
    aligned = [run.take(np.argsort(run.images, kind="stable")) for run in runs]
    first = aligned[0]
    for run in aligned[1:]:
        if not np.array_equal(run.images, first.images):
            raise ValueError("the runs were tested on different images")
        if run.findings != first.findings or not np.array_equal(
            run.labels, first.labels, equal_nan=True
        ):
            raise ValueError("the same test images have other labels in two of the runs")
    return aligned


# Thresholds


def best_threshold(label: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the highest F1; 0.5 where the images do not have both values.

    It lies halfway between two neighbouring scores, so that rounding does not move an image across
    it. Of equal ones the highest is taken.

    Args:
        label: ``[n]`` of 1, 0 and NaN for unknown. scores: ``[n]`` probabilities.
    """
    known = ~np.isnan(label)
    positive, scores = label[known] > 0.5, scores[known]
    if positive.all() or not positive.any():
        return DEFAULT_THRESHOLD
    values = np.unique(scores)[::-1]
    order = np.argsort(-scores, kind="stable")
    # How many images, and how many of the finding, score at least each value.
    ends = np.searchsorted(-scores[order], -values, side="right")
    hits = np.cumsum(positive[order])[ends - 1]
    f1 = 2 * hits / (ends + positive.sum())
    best = int(f1.argmax())
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)


def best_thresholds(run: FindingPredictions) -> np.ndarray:
    """``[F]`` the ``best_threshold`` of each finding."""
    pairs = zip(run.labels.T, run.probabilities.T, strict=True)
    return np.array([best_threshold(label, scores) for label, scores in pairs])


# Figures


def weighted_figures(
    run: FindingPredictions, weights: np.ndarray, thresholds: np.ndarray
) -> dict[str, np.ndarray]:
    """Figures under many weightings of the images: name -> ``[times]`` fractions, NaN undefined.

    Args:
        weights: ``[times, n]``, how often each image counts. thresholds: ``[F]``, of the F1.

    Returns:
        ``auroc(finding)`` and ``f1(finding)`` of each, ``macro_auroc`` and ``macro_f1``.
    """
    areas, scores = [], []
    for c in range(len(run.findings)):
        label, p = run.labels[:, c], run.probabilities[:, c]
        known = ~np.isnan(label)
        positive, p, of_known = label[known] > 0.5, p[known], weights[:, known]
        area = weighted_area(positive, p, of_known)
        areas.append(area)
        scores.append(np.where(np.isnan(area), np.nan, _f1(positive, p >= thresholds[c], of_known)))
    figures = {"macro_auroc": _mean_defined(areas), "macro_f1": _mean_defined(scores)}
    for name, area, score in zip(run.findings, areas, scores, strict=True):
        figures |= {auroc_of(name): area, f1_of(name): score}
    return figures


def auroc_of(finding: str) -> str:
    """The name of a finding's AUROC among figures."""
    return f"auroc({finding})"


def f1_of(finding: str) -> str:
    """The name of a finding's F1 among figures."""
    return f"f1({finding})"


def _f1(positive: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    hits = weights @ (positive & predicted).astype(float)
    total = weights @ positive.astype(float) + weights @ predicted.astype(float)
    return np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0)


def _mean_defined(values: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(values)
    defined = ~np.isnan(stacked)
    count = defined.sum(axis=0)
    total = np.where(defined, stacked, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def macro_auroc(run: FindingPredictions) -> float | None:
    """The mean AUROC over the findings that the images have both values of; None without one."""
    ones = np.ones((1, len(run)))
    value = float(weighted_figures(run, ones, np.full(len(run.findings), 0.5))["macro_auroc"][0])
    return None if np.isnan(value) else value


def finding_figures(run: FindingPredictions, thresholds: np.ndarray | None) -> dict[str, Any]:
    """What results.json says of predictions; None where a figure is not defined.

    Args:
        thresholds: ``[F]``, chosen on validation; None: 0.5 for every finding.
    """
    chosen = np.full(len(run.findings), DEFAULT_THRESHOLD) if thresholds is None else thresholds
    values = {
        name: None if np.isnan(value[0]) else float(value[0])
        for name, value in weighted_figures(run, np.ones((1, len(run))), chosen).items()
    }
    findings = {
        name: {
            "auroc": values[auroc_of(name)],
            "f1": values[f1_of(name)],
            "threshold": float(chosen[c]),
            "known": int((~np.isnan(run.labels[:, c])).sum()),
            "positive": int((run.labels[:, c] > 0.5).sum()),
        }
        for c, name in enumerate(run.findings)
    }
    return {
        **{name: values[name] for name in MACRO},
        "thresholds_from": "0.5" if thresholds is None else "validation",
        "findings": findings,
    }


def finding_lines(run: FindingPredictions, found: dict[str, Any]) -> list[str]:
    """The lines of a run's log.

    Args:
        found: what ``finding_figures`` returned for ``run``.
    """
    lines = ["=> result", f"* total: {len(run):,}"]
    lines += [f"* {name}: {_percent(found[name])}" for name in MACRO]
    for name, figures in found["findings"].items():
        lines.append(
            f"* {name}: AUROC {_percent(figures['auroc'])}, F1 {_percent(figures['f1'])} at "
            f"{figures['threshold']:.4f}, {figures['positive']:,} of {figures['known']:,} images"
        )
    return lines


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{100 * value:.4f}%"
