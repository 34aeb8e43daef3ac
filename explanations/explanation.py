"""The explanation of a batch of images, and the rows of its table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from engine.loading import LoadedRun

from .contributions import Contributions, contributions
from .standardise import Standard, standard
from .what_if import merge_of, with_symptoms

OWN = "(the class's own token)"  # in place of a symptom, for the contribution of g


@dataclass(frozen=True)
class Explanation:
    """Predictions on n images, split by symptom.

    Attributes:
        phrases: class name -> symptoms, in the order of the classes.
        parts: ``Contributions``.
        logits: [n, K], the model's own. probabilities: [n, K].
        standardised: [n, K, k] similarities in deviations from the training images' mean, and
        above_average: [n, K, k] contributions minus their mean over the training images; both None
            if those images are missing.
    """

    phrases: Mapping[str, Sequence[str]]
    parts: Contributions
    logits: np.ndarray
    probabilities: np.ndarray
    standardised: np.ndarray | None = None
    above_average: np.ndarray | None = None

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
    def scores(self) -> np.ndarray:
        """[n, K, k] similarities to show: standardised where that is known, else the cosines."""
        return self.parts.similarity if self.standardised is None else self.standardised

    def difference(self, one: str, other: str) -> tuple[list[str], np.ndarray]:
        """What each phrase adds to logit ``one`` minus logit ``other``.

        A phrase of both classes counts once, with the difference of what it adds to them.

        Args:
            one, other: class names.

        Returns:
            phrases (``OWN`` for the tokens), and [n, phrases] contributions that sum to the
            difference of the logits.
        """
        totals: dict[str, Any] = {}
        for name, sign in ((one, 1), (other, -1)):
            c = self.classnames.index(name)
            for j, phrase in enumerate(self.phrases[name]):
                totals[phrase] = totals.get(phrase, 0) + sign * self.parts.symptom[:, c, j]
            totals[OWN] = totals.get(OWN, 0) + sign * self.parts.own[:, c]
        return list(totals), np.stack(list(totals.values()), axis=1)

    def rows(self, i: int) -> list[dict[str, Any]]:
        """Image ``i`` as dicts, one for each class's own token (MeP) and each symptom."""
        rows = []
        for c, (name, symptoms) in enumerate(self.phrases.items()):
            of_class = {
                "class": name,
                "class_probability": self.probabilities[i, c],
                "class_logit": self.logits[i, c],
            }
            if self.parts.own.any():
                empty = dict.fromkeys(("similarity", "standardised", "weight", "above_average"))
                own = {"symptom": OWN, **empty, "contribution": self.parts.own[i, c]}
                rows.append(of_class | own)
            for j, phrase in enumerate(symptoms):
                rows.append(
                    of_class
                    | {
                        "symptom": phrase,
                        "similarity": self.parts.similarity[i, c, j],
                        "standardised": _at(self.standardised, i, c, j),
                        "weight": self.parts.weight[i, c, j],
                        "contribution": self.parts.symptom[i, c, j],
                        "above_average": _at(self.above_average, i, c, j),
                    }
                )
        return rows


def explain(
    run: LoadedRun,
    images: Any,
    drop: Iterable[str] = (),
    add: Iterable[tuple[str, str]] = (),
) -> Explanation:
    """Explain a run's predictions: similarity, attention and contribution of every symptom.

    Args:
        run: a run whose model merges symptoms.
        images: as ``LoadedRun.predict`` takes them.
        drop: symptoms to remove. add: (class name, symptom) pairs. Nothing is trained.

    Raises:
        InputError: the method does not read symptoms, or a symptom or class is unknown.
    """
    merge_of(run)  # before anything is encoded
    if drop or add:
        run = with_symptoms(run, drop, add)
    return explain_features(run, run.encode(images), standard(run))


def explain_features(run: LoadedRun, features: Tensor, reference: Standard | None) -> Explanation:
    """The explanation of images that are encoded already: features [n, d]."""
    model, symptoms = merge_of(run)
    parts = contributions(model, features)
    logits = run.logits(features)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Explanation(
        phrases=symptoms.phrases,
        parts=parts,
        logits=logits,
        probabilities=shifted / shifted.sum(axis=1, keepdims=True),
        standardised=reference.of(parts.similarity) if reference else None,
        above_average=parts.symptom - reference.contribution if reference else None,
    )


def _at(array: np.ndarray | None, *index: int) -> float | None:
    return None if array is None else array[index]
