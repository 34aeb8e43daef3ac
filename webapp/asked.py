"""A run, or the seeds of one, that answers questions about single images."""

import contextlib
import io
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from backbones.backbone import ImageEncoder
from core.errors import InputError
from core.names import prompt_name
from engine.ensemble import Ensemble
from engine.loading import LoadedRun
from engine.out_of_distribution import TrainingDistance, training_distance, units
from explanations.explanation import Explanation, explain_seeds
from explanations.heatmap_drawing import layer
from explanations.heatmaps import HeatMaps, heat_maps
from explanations.reliability import Reliability, reliability
from explanations.what_if import merge_of
from explanations.wording import verdict_on
from reporting import explanation_items as items

from .checking import checked
from .edits import Edited, edited_run, edited_state, how_new_classes_are_read, trained_state
from .pictures import Pictures, Recent, Shown, png
from .plain import plain

UNSURE = 0.2  # the two most probable classes are closer than this: the answer counts as unsure
CLOSEST, MOST_NEIGHBOURS = 6, 50
Places = dict[tuple[int, int], Reliability]


class AskedRun:
    """An ensemble, and what was computed of it for images and symptoms.

    Args:
        ensemble: seeds of one run, on one class an image. pictures: where image ids are looked up.

    Attributes:
        phrases: class name -> its symptoms; None where the run is not explainable.
    """

    def __init__(self, ensemble: Ensemble, pictures: Pictures) -> None:
        self.ensemble, self.first, self.pictures = ensemble, ensemble.first, pictures
        self.phrases = merge_of(self.first)[1].phrases if self.first.explainable else None
        self._features, self._answers = Recent(500), Recent(500)
        self._versions, self._maps = Recent(20), Recent(8)
        self._splits: dict[str, np.ndarray] = {}

    # -- what the run is ------------------------------------------------------------------------

    @property
    def trained(self) -> Edited:
        """The symptoms as the run was trained with them."""
        if self.phrases is None:
            merge_of(self.first)  # raises, and says why
        return trained_state(self.phrases or {})

    @property
    def has_maps(self) -> bool:
        """Whether heat maps can be drawn."""
        encoder = type(self.first.model.backbone.image)
        return self.phrases is not None and encoder.gradient_maps is not ImageEncoder.gradient_maps

    def about(self, number: int) -> dict[str, Any]:
        """What the page shows of the run."""
        found: dict[str, Any] = {
            "id": str(number),
            "name": self.ensemble.name,
            "method": self.first.cfg.TRAINER.NAME,
            "dataset": self.first.cfg.RUN.DATASET,
            "backbone": self.first.cfg.RUN.BACKBONE,
            "classes": self.ensemble.classnames,
            "explainable": self.phrases is not None,
            "heatmaps": self.has_maps,
            "weights": self.phrases is not None and not merge_of(self.first)[0].takes_nearest,
            "seeds": len(self.ensemble),
            "symptoms": None,
            "new_classes": None,
        }
        if self.phrases is not None:
            found["symptoms"] = self.trained.state()
            if self.reads_new_classes:
                found["new_classes"] = how_new_classes_are_read(self.first)
        return found

    @cached_property
    def reads_new_classes(self) -> bool:
        """Whether the method says how a class is read that training did not see."""
        method, state = self.first.method, self.first.model.learned.state_dict()
        rows = [(key, state[key]) for key in method.per_class() if key in state]
        return all(method.new_class_row(key, tensor) is not None for key, tensor in rows)

    # -- symptoms -------------------------------------------------------------------------------

    def state(self, symptoms: Any) -> Edited:
        """The checked state; None is what was trained."""
        trained = self.trained
        return trained if symptoms is None else edited_state(symptoms, trained.phrases)

    def edited(self, symptoms: Any) -> Edited | None:
        """The checked state to answer with; None where it answers as what was trained."""
        if symptoms is None:
            return None
        edited, trained = self.state(symptoms), self.trained
        if edited.new and not self.reads_new_classes:
            raise InputError(
                f"{self.first.cfg.TRAINER.NAME} learned something for each class, so it cannot "
                f"read the new class {edited.new[0]!r}; remove it, or train on a file that has it"
            )
        return None if edited.key == trained.key else edited

    def runs(self, edited: Edited | None) -> list[LoadedRun]:
        """The seeds, reading these symptoms."""
        if edited is None:
            return self.ensemble.runs
        return self._of_version(edited, "runs", lambda: self._edited_runs(edited))

    def _edited_runs(self, edited: Edited) -> list[LoadedRun]:
        self.reliability(None)  # what it reads of the splits is shared with the edited runs
        # Building says in every seed which words it does not know, and how new classes are read.
        with contextlib.redirect_stdout(io.StringIO()):
            return [edited_run(run, edited) for run in self.ensemble.runs]

    def reliability(self, edited: Edited | None) -> Places:
        """How far each symptom can be relied on; empty where the training images are missing."""
        if self.phrases is None:
            return {}

        def measure() -> Places:
            known = self.reliability(None).values() if edited else ()
            return reliability(self.runs(edited), known)

        return self._of_version(edited, "reliability", measure)

    def _of_version(self, edited: Edited | None, what: str, make: Any) -> Any:
        return self._versions.get_or((what, edited.key if edited else ""), make)

    def check(self, symptoms: Any = None) -> list[dict[str, Any]]:
        """As ``Workbench.check``."""
        edited = self.edited(symptoms)
        said = edited or self.trained
        weights = {
            (name, phrase): weight
            for name, own in said.phrases.items()
            for phrase, weight in zip(own, said.weights[name], strict=True)
        }
        return plain(checked(self.runs(edited), self.reliability(edited), said.new, weights))

    # -- answers --------------------------------------------------------------------------------

    def features(self, shown: Shown) -> Tensor:
        """[1, d] features of an image, encoded by itself as predict.py encodes a single file."""
        source = self.pictures.source(self.first, shown)
        return self._features.get_or(shown.key, lambda: self.first.encode([source]))

    def probabilities(self, shown: Shown) -> np.ndarray:
        """[n_cls] of an image, as predict.py gives them for this file alone."""

        def predict() -> np.ndarray:
            return self.ensemble.predict([self.pictures.source(self.first, shown)])[0]

        return self._answers.get_or(shown.key, predict)

    def of_split(self, split: str) -> np.ndarray:
        """[n, n_cls] of the images of the first run's split, from kept features where it can be."""
        if split not in self._splits:
            images = self.pictures.of_split(split)
            if not images:
                return np.zeros((0, len(self.ensemble.classnames)))
            if self._keeps_features:
                features = self.first.features(split)
                self._splits[split] = self.ensemble.probabilities(features).mean(axis=0)
            else:
                paths = [self.pictures.source(self.first, image) for image in images]
                self._splits[split] = self.ensemble.predict(paths)
        return self._splits[split]

    def predicted(self, shown: Shown) -> str:
        """The class that the run predicts for an image."""
        if shown.place is not None and self._keeps_features:
            row = self.of_split(shown.split)[shown.place]
        else:
            row = self.probabilities(shown)
        return self.ensemble.classnames[int(row.argmax())]

    @property
    def _keeps_features(self) -> bool:
        """Whether kept features of the page's splits are what this run reads."""
        same_data = self.first is self.pictures.run
        return same_data and not self.first.method.learns_image_encoder

    @cached_property
    def trust(self) -> items.Trust:
        """Calibration, and what tells images that are unlike the training images."""
        distance: TrainingDistance | None = training_distance(self.first)
        return items.Trust(self.ensemble.calibration(), None, distance)

    def answer(self, shown: Shown, symptoms: Any = None) -> dict[str, Any]:
        """As ``Workbench.answer``."""
        started = time.perf_counter()
        edited = self.edited(symptoms)
        explanation = None
        if self.phrases is not None:
            explanation = explain_seeds(self.runs(edited), self.features(shown))
        if edited is not None and explanation is not None:
            probabilities = explanation.probabilities[0]
        else:
            probabilities = self.probabilities(shown)
        names = explanation.classnames if explanation else self.ensemble.classnames
        found = self._said(shown, names, probabilities)
        found |= self._explained(shown, explanation, edited)
        found["milliseconds"] = round(1000 * (time.perf_counter() - started), 1)
        return plain(found)

    def _said(
        self, shown: Shown, names: Sequence[str], probabilities: np.ndarray
    ) -> dict[str, Any]:
        label = int(probabilities.argmax())
        confidence = float(self.trust.confidence(probabilities)[label])
        truth = names.index(shown.truth) if shown.truth in names else None
        distance = self.trust.distance
        return {
            "prediction": names[label],
            "probabilities": [
                {"class": name, "probability": p}
                for name, p in zip(names, probabilities, strict=True)
            ],
            "confidence": confidence,
            "confidence_text": items.percent(confidence),
            "calibrated": self.trust.calibration is not None,
            "unlike": bool(distance.unlike(self.features(shown))[0]) if distance else None,
            "truth": shown.truth,
            "verdict": verdict_on(names, probabilities, truth),
        }

    def _explained(
        self, shown: Shown, explanation: Explanation | None, edited: Edited | None
    ) -> dict[str, Any]:
        """What explain.py's page says of an image; all None for a run that is not explainable."""
        found: dict[str, Any] = dict.fromkeys(
            ("evidence", "rows", "warning", "seeds_text", "new_classes")
        )
        if explanation is None:
            return found
        places = self.reliability(edited)
        return found | {
            "evidence": items.evidence(explanation, 0, places),
            "rows": explanation.rows(0),
            "warning": items.warned(explanation, 0, places),
            "seeds_text": items.prediction(explanation, 0, self.trust).get("seeds"),
            "new_classes": how_new_classes_are_read(self.first) if edited and edited.new else None,
        }

    # -- heat maps and neighbours ---------------------------------------------------------------

    def heatmap(self, shown: Shown, classname: Any, phrase: Any, symptoms: Any = None) -> bytes:
        """As ``Workbench.heatmap``."""
        edited = self.edited(symptoms)
        run = self.runs(edited)[0]
        key = shown.key, edited.key if edited else ""
        source = self.pictures.source(self.first, shown)
        maps: HeatMaps = self._maps.get_or(key, lambda: heat_maps(run, source))
        asked = prompt_name(str(classname)), " ".join(str(phrase).split())  # as ``edited_state``
        for number, symptom in enumerate(maps.symptoms):
            if (prompt_name(symptom.classname), symptom.phrase) == asked:
                return png(layer(maps.maps[number], maps.limit))
        raise InputError("there is no such symptom of this class, or it is switched off")

    def neighbours(self, shown: Shown, k: Any = CLOSEST) -> list[dict[str, Any]]:
        """As ``Workbench.neighbours``."""
        if type(k) is not int or not 1 <= k <= MOST_NEIGHBOURS:
            raise InputError(f"the number of similar images is from 1 to {MOST_NEIGHBOURS}")
        if not self._keeps_features:
            raise InputError(
                f"{self.ensemble.name}: similar images are found by kept features of the splits, "
                "which this run does not read"
            )
        training = self.pictures.of_split("train")
        cosines = units(self.first.features("train")) @ units(self.features(shown))[0]
        order = [int(i) for i in np.argsort(-cosines, kind="stable")]
        chosen = [i for i in order if training[i].id != shown.id][:k]
        return [
            {
                "id": training[i].id,
                "name": training[i].name,
                "label": training[i].truth,
                "similarity": float(cosines[i]),
            }
            for i in chosen
        ]
