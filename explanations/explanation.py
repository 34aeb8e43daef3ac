"""The explanation of a batch of images, and the rows of its table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from engine.loading import LoadedRun

from .contributions import Contributions, contributions
from .evidence import OWN, Evidence, Step, Waterfall, evidence_of, waterfall
from .leave_one_out import logits_without
from .reference import Reference, reference_of
from .what_if import merge_of, with_symptoms


@dataclass(frozen=True)
class Explanation:
    """Predictions on n images, split by symptom.

    Of several seeds of a run, ``parts``, ``logits``, ``evidence`` and ``standardised`` are the mean
    over the seeds of what each seed has, and ``probabilities`` the mean of their probabilities.

    Attributes:
        phrases: class name -> the symptoms that it reads, in the order of the classes.
        parts: ``Contributions``.
        logits: [n, K], the model's own. probabilities: [n, K].
        evidence: the same logits as signed parts above the average training image, and
        standardised: [n, K, k] similarities in deviations from the training images' mean; both
            None if those images are missing.
        seed_logits: [seeds, n, K]. without: [seeds, n, K, k] the class's logit without the symptom,
            NaN for padding and for an only symptom.
        owns: [K, k] which symptoms a class has, where every class reads those of all; else None.
    """

    phrases: Mapping[str, Sequence[str]]
    parts: Contributions
    logits: np.ndarray
    probabilities: np.ndarray
    evidence: Evidence | None = None
    standardised: np.ndarray | None = None
    seed_logits: np.ndarray | None = None
    without: np.ndarray | None = None
    owns: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def classnames(self) -> list[str]:
        return list(self.phrases)

    @property
    def prediction(self) -> np.ndarray:
        """[n] labels."""
        return self.probabilities.argmax(axis=1)

    @property
    def rival(self) -> np.ndarray:
        """[n] labels: the most probable class beside the predicted one."""
        others = self.probabilities.copy()
        others[np.arange(len(others)), self.prediction] = -np.inf
        return others.argmax(axis=1)

    def has(self, c: int, j: int) -> bool:
        """Whether the symptom ``j`` that class ``c`` reads is its own."""
        return self.owns is None or bool(self.owns[c, j])

    def owners(self, c: int, j: int) -> list[str]:
        """The classes that have the symptom ``j`` that class ``c`` reads."""
        rows = [c] if self.owns is None else np.flatnonzero(self.owns[:, j])
        return [self.classnames[row] for row in rows]

    def waterfall(self, i: int) -> Waterfall | None:
        """Image ``i``'s margin of the predicted class over its rival; None without evidence."""
        if self.evidence is None:
            return None
        one, rival = int(self.prediction[i]), int(self.rival[i])
        return waterfall(self.evidence, self.phrases, i, one, rival, self.owns)

    def effect(self, i: int, step: Step, label: int | None = None) -> float | None:
        """How much more probable a symptom makes a class: with it, minus without it.

        Args:
            label: the class; the predicted one for None.

        Returns:
            a difference of probabilities; None if the symptom is the only one of its class.
        """
        if not step.places or self.seed_logits is None or self.without is None:
            return None
        label = int(self.prediction[i]) if label is None else label
        changed = self.seed_logits[:, i].copy()  # [seeds, K]
        places: Iterable[tuple[int, int]] = step.places
        if self.owns is not None:  # every class reads it
            places = [(c, step.places[0][1]) for c in range(changed.shape[1])]
        for c, j in places:
            changed[:, c] = self.without[:, i, c, j]
        if np.isnan(changed).any():
            return None
        return float(self.probabilities[i, label] - softmax(changed).mean(axis=0)[label])

    def rows(self, i: int) -> list[dict[str, Any]]:
        """Image ``i`` as dicts, one for each class's own token (MeP) and each symptom.

        ``evidence`` is the part above the training images' mean in the class's own logit.
        """
        rows = []
        own = self.evidence.own if self.evidence else None
        symptom = self.evidence.symptom if self.evidence else None
        for c, (name, symptoms) in enumerate(self.phrases.items()):
            of_class = {
                "class": name,
                "class_probability": self.probabilities[i, c],
                "class_logit": self.logits[i, c],
            }
            if self.parts.own.any():
                empty = dict.fromkeys(("similarity", "standardised", "weight", "effect"))
                values = {"contribution": self.parts.own[i, c], "evidence": _at(own, i, c)}
                rows.append(of_class | {"symptom": OWN, "symptom_of": name, **empty, **values})
            for j, phrase in enumerate(symptoms):
                values = {
                    "symptom": phrase,
                    "symptom_of": " and ".join(self.owners(c, j)),
                    "similarity": self.parts.similarity[i, c, j],
                    "standardised": _at(self.standardised, i, c, j),
                    "weight": self.parts.weight[i, c, j],
                    "contribution": self.parts.symptom[i, c, j],
                    "evidence": _at(symptom, i, c, j),
                    "effect": self.effect(i, Step(phrase, 0.0, ((c, j),)), c),
                }
                rows.append(of_class | values)
        return rows


def explain(
    run: LoadedRun,
    images: Any,
    drop: Iterable[str] = (),
    add: Iterable[tuple[str, str]] = (),
) -> Explanation:
    """Explain a run's predictions: similarity, signed evidence and effect of every symptom.

    Args:
        run: an explainable run.
        images: as ``LoadedRun.predict`` takes them.
        drop: symptoms to remove. add: (class name, symptom) pairs. Nothing is trained.

    Raises:
        InputError: the run is not explainable, or a symptom or class is unknown.
    """
    merge_of(run)  # before anything is encoded
    if drop or add:
        run = with_symptoms(run, drop, add)
    return explain_features(run, run.encode(images), reference_of(run))


def explain_features(run: LoadedRun, features: Tensor, reference: Reference | None) -> Explanation:
    """The explanation of images that are encoded already: features [n, d]."""
    model, _ = merge_of(run)
    parts = contributions(model, features)
    logits = run.logits(features)
    return Explanation(
        phrases=model.phrases,
        parts=parts,
        logits=logits,
        probabilities=softmax(logits),
        evidence=evidence_of(model, parts, reference) if reference else None,
        standardised=reference.standardised(parts.similarity) if reference else None,
        seed_logits=logits[None],
        without=logits_without(model, features)[None],
        owns=model.owns.cpu().numpy() if model.shared else None,
    )


def explain_seeds(runs: Sequence[LoadedRun], features: Tensor) -> Explanation:
    """The explanation by several seeds of a run together; features [n, d] of their backbone."""
    return mean_explanation([explain_features(run, features, reference_of(run)) for run in runs])


def mean_explanation(explanations: Sequence[Explanation]) -> Explanation:
    """Explanations of the same images by seeds of one run as one: their mean."""
    if len(explanations) == 1:
        return explanations[0]
    first = explanations[0]
    parts = Contributions(
        *(
            _mean([getattr(e.parts, name) for e in explanations])
            for name in ("similarity", "weight", "symptom", "own")
        )
    )
    evidence = [e.evidence for e in explanations if e.evidence is not None]
    standardised = [e.standardised for e in explanations if e.standardised is not None]
    complete = len(evidence) == len(explanations)
    return replace(
        first,
        parts=parts,
        logits=_mean([e.logits for e in explanations]),
        probabilities=_mean([e.probabilities for e in explanations]),
        evidence=Evidence(
            *(_mean([getattr(e, n) for e in evidence]) for n in ("baseline", "symptom", "own"))
        )
        if complete
        else None,
        standardised=_mean(standardised) if complete else None,
        seed_logits=np.concatenate([e.seed_logits for e in explanations]),
        without=np.concatenate([e.without for e in explanations]),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(np.stack(arrays), axis=0)


def _at(array: np.ndarray | None, *index: int) -> float | None:
    return None if array is None else array[index]
