"""The explanation of a batch of pictures, and the rows of its table."""

from dataclasses import dataclass

import numpy as np

from .contributions import Contributions, contributions
from .standardise import standard

OWN = "(the class's own token)"  # stands in a symptom's place for the part of g


@dataclass(frozen=True)
class Explanation:
    """Answers on n pictures, taken apart by symptom.

    Attributes:
        phrases: class name -> symptoms, in the order of the classes.
        parts: ``Contributions``.
        logits: [n, K], the model's own. probabilities: [n, K].
        standardised: [n, K, k] similarities in deviations from the training pictures' mean, and
        above_average: [n, K, k] contributions less their mean over the training pictures; both None
            where those pictures are not here.
    """

    phrases: dict
    parts: Contributions
    logits: np.ndarray
    probabilities: np.ndarray
    standardised: np.ndarray | None = None
    above_average: np.ndarray | None = None

    def __len__(self):
        return len(self.logits)

    @property
    def classnames(self):
        return list(self.phrases)

    @property
    def prediction(self):
        """[n] labels."""
        return self.probabilities.argmax(axis=1)

    def take(self, index):
        """The explanation of some of the pictures."""

        def rows(array):
            return None if array is None else array[index]

        parts = Contributions(*(rows(getattr(self.parts, f)) for f in _FIELDS))
        return Explanation(
            self.phrases,
            parts,
            rows(self.logits),
            rows(self.probabilities),
            rows(self.standardised),
            rows(self.above_average),
        )

    def difference(self, one, other):
        """What each phrase adds to logit ``one`` minus logit ``other``.

        A phrase of both classes counts once, with the difference of what it adds to them.

        Args:
            one, other: class names.

        Returns:
            phrases (``OWN`` for the tokens), and [n, phrases] contributions that sum to the
            difference of the logits.
        """
        totals = {}
        for name, sign in ((one, 1), (other, -1)):
            c = self.classnames.index(name)
            for j, phrase in enumerate(self.phrases[name]):
                totals[phrase] = totals.get(phrase, 0) + sign * self.parts.symptom[:, c, j]
            totals[OWN] = totals.get(OWN, 0) + sign * self.parts.own[:, c]
        return list(totals), np.stack(list(totals.values()), axis=1)

    def rows(self, i):
        """Picture ``i`` as dicts, one for each class's own token (MeP) and each symptom."""
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


_FIELDS = ("similarity", "weight", "symptom", "own")


def explain(run, images, reference=None):
    """Explain a run's answers.

    Args:
        run: ``LoadedRun`` of a method that merges symptoms.
        images: pictures as ``LoadedRun.predict`` takes them.
        reference: ``Standard``; computed for ``None``.

    Returns:
        ``Explanation``.
    """
    run.check_symptoms()
    features = run.encode(images)
    return explain_features(run, features, reference or standard(run))


def explain_features(run, features, reference):
    """The explanation of pictures that are encoded already; ``reference`` may be None."""
    parts = contributions(run.model, features)
    logits = run.logits(features)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Explanation(
        phrases=run.symptoms.phrases,
        parts=parts,
        logits=logits,
        probabilities=shifted / shifted.sum(axis=1, keepdims=True),
        standardised=reference.of(parts.similarity) if reference else None,
        above_average=parts.symptom - reference.contribution if reference else None,
    )


def _at(array, *index):
    return None if array is None else array[index]
