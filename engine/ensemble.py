"""Several seeds of one run as one model: the mean of their probabilities."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from core.errors import InputError
from engine.config import INDIFFERENT
from engine.loading import ImageSource, LoadedRun, load_run
from results.calibration import Calibration, calibrate
from results.settings import flatten


class Ensemble:
    """Seeds of one run; a single run is an ensemble of one.

    Attributes:
        runs: in the order given. first: the first of them.

    Raises:
        InputError: they are not different seeds of one run.

    Source: Lakshminarayanan et al., NeurIPS 2017, https://arxiv.org/abs/1612.01474, equation 2.
    """

    def __init__(self, runs: Sequence[LoadedRun]) -> None:
        self.runs = list(runs)
        self.first = self.runs[0]
        for run in self.runs[1:]:
            _check_same(self.first, run)
        seen: dict[int, Path] = {}
        for run in self.runs:
            if run.cfg.SEED in seen:
                raise InputError(
                    f"{run.folder} and {seen[run.cfg.SEED]} are both seed {run.cfg.SEED}; "
                    "give each seed once"
                )
            seen[run.cfg.SEED] = run.folder

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def classnames(self) -> list[str]:
        return self.first.classnames

    @property
    def findings(self) -> list[str]:
        return self.first.findings

    def said_of(self, probabilities: np.ndarray) -> list[str]:
        """The prediction of each image in words.

        Args:
            probabilities: what ``predict`` returned.

        Returns:
            the most probable class, or the findings whose probability reaches the mean of the runs'
            thresholds, joined by "|".
        """
        if not self.findings:
            return [self.classnames[place] for place in probabilities.argmax(axis=1)]
        there = probabilities >= np.mean([run.thresholds for run in self.runs], axis=0)
        return ["|".join(np.array(self.findings)[row]) for row in there]

    @property
    def name(self) -> str:
        """Method, dataset, backbone and seeds in one line."""
        if len(self) == 1:
            return self.first.name
        seeds = ", ".join(str(run.cfg.SEED) for run in self.runs)
        return f"{self.first.name.rsplit(', seed ', 1)[0]}, seeds {seeds}"

    def predict_each(self, images: ImageSource | Iterable[ImageSource]) -> np.ndarray:
        """[seeds, n, n_cls] probabilities of each seed, of classes or findings (``LoadedRun``)."""
        if not isinstance(images, str | Path) and isinstance(images, Iterable):
            images = list(images)
        return np.stack([run.predict(images) for run in self.runs])

    def predict(self, images: ImageSource | Iterable[ImageSource]) -> np.ndarray:
        """[n, n_cls] the mean of the seeds' probabilities."""
        return self.predict_each(images).mean(axis=0)

    def probabilities(self, features: Tensor) -> np.ndarray:
        """[seeds, n, n_cls] of features that the first run's ``encode`` or ``features`` gave."""
        from scipy.special import softmax

        return np.stack([softmax(run.logits(features), axis=1) for run in self.runs])

    def calibration(self) -> Calibration | None:
        """The temperature of the mean probability, fitted on the validation images.

        None, and a line on stderr, if those images are missing.
        """
        try:
            features = self.first.features("val")
            labels = np.array([picture.label for picture in self.first.pictures("val")], int)
            if not len(labels):
                raise InputError("there are no validation images")
        except InputError as error:
            print(f"the confidence is not calibrated: {error}", file=sys.stderr)
            return None
        return calibrate(self.probabilities(features).mean(axis=0), labels)


def load_ensemble(folders: Sequence[Path | str], root: Path | str | None = None) -> Ensemble:
    """Load seeds of one run; arguments and errors as for ``load_run`` and ``Ensemble``."""
    return Ensemble([load_run(folder, root=root) for folder in folders])


def _check_same(first: LoadedRun, other: LoadedRun) -> None:
    ours, theirs = _identity(first), _identity(other)
    for key in [*ours, *theirs]:
        if ours.get(key) != theirs.get(key):
            raise InputError(
                f"{other.folder} is not another seed of {first.folder}: {key} is "
                f"{theirs.get(key)!r} there and {ours.get(key)!r} here; give seeds of one run"
            )


def _identity(run: LoadedRun) -> dict[str, Any]:
    """What the seeds of a run have in common."""
    settings = {
        key: value for key, value in flatten(run.cfg).items() if key not in (*INDIFFERENT, "SEED")
    }
    symptoms = run.symptoms.fingerprint if run.symptoms else None
    return settings | {
        "the class names": run.classnames,
        "the symptoms": symptoms,
        "the backbone's weights": run.model.backbone.fingerprint,
    }
