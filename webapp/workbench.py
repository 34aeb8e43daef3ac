"""All that the page asks for, without a web server: one object, plain values, one-line errors."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError, shortened
from engine.ensemble import load_ensemble

from . import files, suggestions
from .asked import CLOSEST, UNSURE, AskedRun
from .edits import class_name_of
from .notes import Notes, agreement
from .pictures import UPLOAD_BYTES, UPLOADS, Pictures, Shown
from .plain import plain

OUTCOMES = ("all", "correct", "incorrect", "unsure")
MOST_LISTED = 500  # images of one answer of ``images``
NOTES = "notes.csv"


class Workbench:
    """Runs, images and symptoms that a page works on.

    Every method returns dicts and lists of plain values and raises ``InputError`` for bad input.
    Models are shared: calls must come one at a time.

    Args:
        asked: one a named run; the first one's dataset gives the splits.
        notes: where notes are kept. symptoms: folder that symptom files are saved in.
    """

    def __init__(
        self, asked: Sequence[AskedRun], pictures: Pictures, notes: Notes, symptoms: Path
    ) -> None:
        self._asked, self._pictures = list(asked), pictures
        self._notes, self._symptoms = notes, symptoms

    @classmethod
    def open(
        cls,
        runs: Sequence[Sequence[Path]],
        root: Path | str | None = None,
        notes: Path | None = None,
        symptoms: Path = Path("symptoms"),
    ) -> "Workbench":
        """Load runs; a run is a sequence of the folders of its seeds.

        Args:
            root: folder that holds the datasets; None: the runs' own.
            notes: the CSV file of notes; None: notes.csv beside the first run.
            symptoms: folder that symptom files are saved in.

        Raises:
            InputError: a folder is not a run, or one of several findings an image; ``notes`` is
                another kind of file.
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
        folders = [Path(folder) for folder in runs[0]]
        shared = folders[0] if len(folders) == 1 else folders[0].parent
        asked = [AskedRun(ensemble, pictures) for ensemble in ensembles]
        return cls(asked, pictures, Notes(notes or shared / NOTES), symptoms)

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
            "endpoint": suggestions.endpoint_host(),
            "notes_file": str(self._notes.path),
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
        if class_name is not None and class_name not in self._pictures.run.classnames:
            raise InputError(f"there is no class {_quoted(class_name)}")
        every = self._listed(asked, split, outcome)
        found = [
            image
            for image in every
            if class_name in (None, image["truth"]) and patient in (None, image["patient"])
        ]
        patients = {number for number in self._pictures.patients(split) if number}
        return {
            "total": len(found),
            "images": found[offset : offset + min(limit, MOST_LISTED)],
            "patients": sorted(patients, key=lambda number: (len(number), number)),
        }

    def _listed(self, asked: AskedRun, split: str, outcome: str) -> list[dict[str, Any]]:
        """The images of a split with this outcome."""
        shown, patients = self._pictures.of_split(split), self._pictures.patients(split)
        probabilities, names = asked.of_split(split), asked.ensemble.classnames
        found = []
        for image, patient, row in zip(shown, patients, probabilities, strict=True):
            label = int(row.argmax())
            if _fits(outcome, image, names[label], row):
                found.append(
                    {
                        "id": image.id,
                        "name": image.name,
                        "truth": image.truth,
                        "prediction": names[label],
                        "probability": float(row[label]),
                        "patient": patient or None,
                    }
                )
        return found

    def key(self, image: str) -> str:
        """What identifies an image in any session, whichever of its ids is given."""
        return self._pictures.find(image).key

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

    # -- symptoms -------------------------------------------------------------------------------

    def check(self, run: str, symptoms: Any = None) -> list[dict[str, Any]]:
        """How each phrase does on the training images: AUC, drift, and which are weak."""
        return self._run(run).check(symptoms)

    def suggestion_request(self, run: str, class_name: str) -> dict[str, Any]:
        """Where a question about a class would be sent, and its exact text; nothing is sent."""
        return suggestions.request_for(self._class(run, class_name))

    def suggest(self, run: str, class_name: str, consent: str) -> list[str]:
        """Phrases from the endpoint; the only call that leaves the machine, and no image with it.

        Args:
            consent: "endpoint" of ``suggestion_request``, to which the user agreed.
        """
        name = self._class(run, class_name)
        return suggestions.suggest(name, consent, self._run(run).ensemble.classnames)

    def _class(self, run: str, class_name: Any) -> str:
        """A class of the run, or a new class's name."""
        return class_name_of(class_name, self._run(run).trained.phrases)

    def save(self, run: str, symptoms: Any, name: str) -> dict[str, Any]:
        """Write the symptoms as a new file; returns its path and the command that trains on it."""
        asked = self._run(run)
        edited = asked.state(symptoms)
        path = files.save(self._symptoms, name, files.content_of(asked.first, edited))
        command, note = files.training_command(asked.first, path, edited)
        return {"path": str(path), "command": command, "note": note}

    def symptom_file(self, run: str, symptoms: Any = None) -> str:
        """The text of the file that ``save`` would write."""
        asked = self._run(run)
        return files.text_of(files.content_of(asked.first, asked.state(symptoms)))

    def read_symptom_file(self, run: str, text: str) -> list[dict[str, Any]]:
        """The symptoms in a symptom file's text, for this run."""
        return plain(files.read(text, self._run(run).trained.phrases))

    # -- notes ----------------------------------------------------------------------------------

    def note(self, image: str, label: str, remark: str = "", reader: str = "") -> dict[str, Any]:
        """Keep a user's own label ("" for none) and remark for an image."""
        shown = self._pictures.find(image)
        names = {name for asked in self._asked for name in asked.ensemble.classnames}
        if not isinstance(label, str) or (label and label not in names):
            raise InputError(f"there is no class {_quoted(label)}; {', '.join(sorted(names))}")
        note = self._notes.add(shown.key, shown.name, label, remark, reader)
        return {**note, "id": shown.id}

    def notes(self) -> list[dict[str, Any]]:
        """All notes, the oldest first; "id" is null for an image that is not open here."""
        here = self._here()
        return [
            {**note, "id": here[note["image"]].id if note["image"] in here else None}
            for note in self._notes.rows()
        ]

    def agreement(
        self, run: str, hides: Callable[[str], bool] = lambda key: False
    ) -> dict[str, Any]:
        """Cohen's kappa between the notes and a run's predictions.

        Args:
            hides: whether the notes on the image with this key are left out.
        """
        asked, here = self._run(run), self._here()
        notes = [note for note in self._notes.latest() if not hides(note["image"])]
        shown = {note["image"]: here[note["image"]] for note in notes if note["image"] in here}
        predictions = {key: asked.predicted(image) for key, image in shown.items()}
        return plain(agreement(notes, predictions, asked.first.cfg.TRAINER.NAME))

    def _here(self) -> dict[str, Shown]:
        """The images that are open here, by what identifies them in any session."""
        every = [
            image for split in self._pictures.counts for image in self._pictures.of_split(split)
        ]
        return {image.key: image for image in (*every, *self._pictures.uploaded())}

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
