"""All that the page asks for, without a web server: one object, plain values, one-line errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError, shortened
from engine.ensemble import load_ensemble

from .asked import CLOSEST, UNSURE, AskedRun
from .pictures import UPLOAD_BYTES, UPLOADS, Pictures, Shown

OUTCOMES = ("all", "correct", "incorrect", "unsure")
MOST_LISTED = 500  # images of one answer of ``images``


class Workbench:
    """Runs, images and symptoms that a page works on.

    Every method returns dicts and lists of plain values and raises ``InputError`` for bad input.
    Models are shared: calls must come one at a time.

    Args:
        asked: one a named run; the first one's dataset gives the splits.
    """

    def __init__(self, asked: Sequence[AskedRun], pictures: Pictures) -> None:
        self._asked, self._pictures = list(asked), pictures

    @classmethod
    def open(
        cls,
        runs: Sequence[Sequence[Path]],
        root: Path | str | None = None,
        notes: Path | None = None,
    ) -> "Workbench":
        """Load runs; a run is a sequence of the folders of its seeds.

        Args:
            root: folder that holds the datasets; None: the runs' own.

        Raises:
            InputError: a folder is not a run, or one of several findings an image.
        """
        ensembles = [load_ensemble(folders, root=root) for folders in runs]
        if not ensembles:
            raise InputError("name at least one run")
        for ensemble in ensembles:
            if ensemble.findings:
                raise InputError(
                    f"{ensemble.first.folder}: has several findings an image; this page shows runs "
                    "on one class an image (predict.py gives the probabilities of findings)"
                )
        pictures = Pictures(ensembles[0].first)
        return cls([AskedRun(ensemble, pictures) for ensemble in ensembles], pictures)

    def about(self) -> dict[str, Any]:
        """The runs with their symptoms, the splits and the limits."""
        return {
            "runs": [asked.about(number) for number, asked in enumerate(self._asked)],
            "splits": self._pictures.counts,
            "limits": {
                "upload_bytes": UPLOAD_BYTES,
                "uploads": UPLOADS,
                "unsure_margin": UNSURE,
            },
            "endpoint": None,
            "notes_file": None,
        }

    # -- images ---------------------------------------------------------------------------------

    def images(
        self,
        run: str,
        split: str,
        outcome: str = "all",
        class_name: str | None = None,
        offset: int = 0,
        limit: int = 60,
        patient: str | None = None,
    ) -> dict[str, Any]:
        """The images of a split with a run's predictions.

        Args:
            outcome: one of ``OUTCOMES``; unsure: the two most probable classes are less than
                ``UNSURE`` apart.
            class_name: only images whose true class it is. patient: only a patient's, by number.
            offset, limit: which of them.
        """
        asked = self._run(run)
        if outcome not in OUTCOMES:
            raise InputError(f"there is no choice {_quoted(outcome)}; {', '.join(OUTCOMES)}")
        for value, least in ((offset, 0), (limit, 1)):
            if type(value) is not int or value < least:
                raise InputError(f"offset and limit are whole numbers, and not {_quoted(value)}")
        shown = self._pictures.of_split(split)
        if class_name is not None and class_name not in self._pictures.run.classnames:
            raise InputError(f"there is no class {_quoted(class_name)}")
        probabilities, patients = asked.of_split(split), self._pictures.patients(split)
        names = asked.ensemble.classnames
        found = []
        for i, image in enumerate(shown):
            label = int(probabilities[i].argmax())
            if (
                _fits(outcome, image, names[label], probabilities[i])
                and class_name in (None, image.truth)
                and patient in (None, patients[i])
            ):
                found.append(
                    {
                        "id": image.id,
                        "name": image.name,
                        "truth": image.truth,
                        "prediction": names[label],
                        "probability": float(probabilities[i, label]),
                        "patient": patients[i] or None,
                    }
                )
        return {
            "total": len(found),
            "images": found[offset : offset + min(limit, MOST_LISTED)],
            "patients": sorted({p for p in patients if p}, key=lambda p: (len(p), p)),
        }

    def thumbnail(self, image: str, size: int = 256) -> bytes:
        """An image as PNG, its longer side at most ``size`` pixels."""
        return self._pictures.thumbnail(self._pictures.find(image), size)

    def upload(self, name: str, data: bytes) -> dict[str, Any]:
        """Keep an image in memory; returns its id."""
        shown = self._pictures.add(name, data)
        return {"id": shown.id, "name": shown.name}

    # -- answers --------------------------------------------------------------------------------

    def answer(self, run: str, image: str, symptoms: Any = None) -> dict[str, Any]:
        """A run's answer on an image, with the trained symptoms or with others.

        Without symptoms, or with the trained ones, the probabilities are those of predict.py for
        this file; with others, those of explain.py's --drop and --add.
        """
        return self._run(run).answer(self._pictures.find(image), symptoms)

    def heatmap(
        self, run: str, image: str, class_name: str, phrase: str, symptoms: Any = None
    ) -> bytes:
        """Where an image shows a symptom: PNG with transparency, to be laid over the image.

        Of several seeds it is the first one's.
        """
        shown = self._pictures.find(image)
        return self._run(run).heatmap(shown, class_name, phrase, symptoms)

    def neighbours(self, run: str, image: str, k: int = CLOSEST) -> list[dict[str, Any]]:
        """The ``k`` training images whose features are the most similar (cosine)."""
        return self._run(run).neighbours(self._pictures.find(image), k)

    def _run(self, run: Any) -> AskedRun:
        numbers = [str(number) for number in range(len(self._asked))]
        if not isinstance(run, str) or run not in numbers:
            raise InputError(f"there is no run {_quoted(run)}; there are {', '.join(numbers)}")
        return self._asked[int(run)]


def _fits(outcome: str, image: Shown, prediction: str, probabilities: np.ndarray) -> bool:
    if outcome == "unsure":
        second, first = np.sort(probabilities)[-2:] if len(probabilities) > 1 else (0.0, 1.0)
        return bool(first - second < UNSURE)
    return outcome == "all" or (prediction == image.truth) == (outcome == "correct")


def _quoted(value: object) -> str:
    return shortened(ascii(value))
