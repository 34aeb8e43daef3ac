"""Does an explanation in words hold? Deletion and insertion in the order of the words.

An explanation says more than numbers: it says that the model decided by what the symptoms' *words*
describe. A run that learned other meanings for its symptoms has explanations that sum exactly and
still mislead. So the order here is not the explanation's own but that of the words: how strongly
the image shows each symptom by the *untrained* symptom, which the frozen encoder makes of the
phrase alone, in standard deviations over the training images; a symptom of the rival counts with
the opposite sign, and one of a third class, which a concept bottleneck reads too, not at all. In
this order symptoms are

* deleted: the similarity of one after the other is replaced by its mean over the training images,
  and the margin of the predicted class over its rival goes from the image's own to that of an
  average image. If the words hold, it falls sooner than in random order;
* inserted: the same the other way round, from an average image on. If the words hold, the margin
  rises sooner.

The area between the two curves, the *gain*, is compared with that of the explanation's own order,
which no order can beat where the merge is a sum. Their ratio is 1 if the words order the symptoms
as the model uses them, about 0 if the words say nothing, and negative if meanings are reversed. A
run passes if the whole 95 % interval of the ratio is above ``PASSED``.

Where the merge is a sum, the two curves are mirror images, and both measures have one gain.

After Petsiuk et al., BMVC 2018, https://arxiv.org/abs/1806.07421 (deletion and insertion); the
order by the untrained symptoms is ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.symptom_model import SymptomModel
from results import statistics

from .contributions import Contributions
from .evidence import evidence_of
from .reference import Reference

MEASURES = ("deletion", "insertion")
PASSED = 0.5  # of the gain of the explanation's own order
ORDERS = 200  # random orders
ORDINARY = ("by_words", "by_evidence", "random")


@dataclass(frozen=True)
class Curves:
    """Margins of the predicted class over its rival, image by image, in log-odds.

    ``by_words``, ``by_evidence`` and ``random`` are [n, m], images by steps: the share of the
    symptoms deleted or inserted goes from 0 to 1.
    """

    measure: str
    by_words: np.ndarray
    by_evidence: np.ndarray
    random: np.ndarray

    def gain(self, order: str = "by_words") -> np.ndarray:
        """[n] area by which an order beats the random one, in log-odds."""
        sign = 1 if self.measure == "insertion" else -1
        return sign * (getattr(self, order) - self.random).mean(axis=1)


@dataclass(frozen=True)
class Scored:
    """What the curves of one run follow from.

    Attributes:
        parts: of n images. words: [n, K, k] their similarities to the untrained symptoms, in
            deviations from the training images' mean.
    """

    model: SymptomModel
    parts: Contributions
    reference: Reference
    words: np.ndarray

    def class_logits(self, images: np.ndarray, label: int, kept: np.ndarray) -> np.ndarray:
        """[m] logits of a class, with the mean similarity for its symptoms that are not ``kept``.

        Args:
            images: [m] places of images. kept: [m, k_c] bool, of what class ``label`` reads.
        """
        own = slice(kept.shape[1])  # without the padding
        if self.model.takes_nearest:
            similarity = self.parts.similarity[images, label, own]
            mixed = np.where(kept, similarity, self.reference.similarity[label, own])
            return float(self.model.logit_scale.double().exp()) * mixed.max(axis=1)
        parts = self.parts.symptom[images, label, own]
        mixed = np.where(kept, parts, self.reference.symptom[label, own])
        return mixed.sum(axis=1) + self.parts.own[images, label]


def word_scores(similarity: np.ndarray, training: np.ndarray) -> np.ndarray:
    """[n, K, k] how far images show what the words say, in deviations over the training images.

    Args:
        similarity: [n, K, k] to the untrained symptoms. training: the same of training images.
    """
    deviation = training.std(axis=0)
    return (similarity - training.mean(axis=0)) / np.where(deviation > 0, deviation, np.inf)


def curves(
    scored: Scored, predicted: np.ndarray, rival: np.ndarray, seed: int = 0
) -> dict[str, Curves]:
    """Deletion and insertion in the order of the words, of the evidence, and in random order.

    The random curve is the mean over ``ORDERS`` orders, the same for all images; where the merge is
    a sum, it is the straight line that this mean tends to.

    Args:
        predicted, rival: [n] labels.

    Returns:
        measure -> ``Curves``.
    """
    generator = np.random.default_rng(seed)
    counts = scored.model.mask.sum(dim=1).cpu().numpy()
    steps = 1 + int(counts[0] if scored.model.shared else np.sort(counts)[-2:].sum())
    found = {m: {o: np.zeros((len(predicted), steps)) for o in ORDINARY} for m in MEASURES}
    evidence = evidence_of(scored.model, scored.parts, scored.reference).symptom
    words = np.where(scored.model.owns.cpu().numpy(), scored.words, 0.0)
    for pair in sorted(set(zip(predicted.tolist(), rival.tolist(), strict=True))):
        chosen = np.flatnonzero((predicted == pair[0]) & (rival == pair[1]))
        sizes = (int(counts[pair[0]]), int(counts[pair[1]]))
        own = _Pair(scored, chosen, pair, sizes)
        for order, values in (("by_words", words), ("by_evidence", evidence)):
            ranked = np.argsort(-own.signed(values), axis=1, kind="stable")
            for measure in MEASURES:
                found[measure][order][chosen] = _stretched(own.curve(measure, ranked), steps)
        for measure in MEASURES:
            found[measure]["random"][chosen] = _stretched(own.chance(measure, generator), steps)
    return {measure: Curves(measure, **orders) for measure, orders in found.items()}


@dataclass(frozen=True)
class _Pair:
    """The images that are predicted as one class, with one rival."""

    scored: Scored
    chosen: np.ndarray  # their places
    labels: tuple[int, int]  # predicted, rival
    counts: tuple[int, int]  # symptoms that each reads

    @property
    def shared(self) -> bool:
        """Whether both read the same symptoms: then P are theirs, else those of the two."""
        return self.scored.model.shared

    def signed(self, values: np.ndarray) -> np.ndarray:
        """[n, P] values [., K, k] of both classes' symptoms; the rival's with the opposite sign."""
        own, other = (
            values[self.chosen, label, :count]
            for label, count in zip(self.labels, self.counts, strict=True)
        )
        if self.shared:
            return own - other
        return np.nan_to_num(np.concatenate([own, -other], axis=1))

    def curve(self, measure: str, ranked: np.ndarray) -> np.ndarray:
        """[n, P + 1] margins with 0, 1, ... P symptoms of ``ranked`` [n, P] deleted or inserted."""
        kept = np.full(ranked.shape, measure == "deletion")
        rows = np.arange(len(ranked))
        margins = [self._margin(kept)]
        for step in range(ranked.shape[1]):
            kept[rows, ranked[:, step]] = measure == "insertion"
            margins.append(self._margin(kept))
        return np.stack(margins, axis=1)

    def chance(self, measure: str, generator: np.random.Generator) -> np.ndarray:
        """The mean of ``curve`` over random orders."""
        total = self.counts[0] if self.shared else sum(self.counts)
        ends = np.tile(np.arange(total), (len(self.chosen), 1))
        if not self.scored.model.takes_nearest:
            first, *_, last = self.curve(measure, ends).T
            return first[:, None] + (last - first)[:, None] * np.linspace(0, 1, total + 1)
        orders = [np.broadcast_to(generator.permutation(total), ends.shape) for _ in range(ORDERS)]
        return np.mean([self.curve(measure, order) for order in orders], axis=0)

    def _margin(self, kept: np.ndarray) -> np.ndarray:
        """[n] with the similarities of the symptoms ``kept`` [n, P] and the mean of the others."""
        split = self.counts[0]
        both = (kept, kept) if self.shared else (kept[:, :split], kept[:, split:])
        one, other = (
            self.scored.class_logits(self.chosen, label, part)
            for label, part in zip(self.labels, both, strict=True)
        )
        return one - other


def _stretched(curve: np.ndarray, steps: int) -> np.ndarray:
    """[n, m] curves at ``steps`` equal shares, so that classes of any number of symptoms join."""
    have, wanted = np.linspace(0, 1, curve.shape[1]), np.linspace(0, 1, steps)
    return np.stack([np.interp(wanted, have, row) for row in curve])


def mean_curves(seeds: Sequence[Mapping[str, Curves]]) -> dict[str, Curves]:
    """The curves of several seeds on the same images as one: their mean."""
    return {
        measure: Curves(
            measure,
            *(
                np.mean([getattr(own[measure], order) for own in seeds], axis=0)
                for order in ORDINARY
            ),
        )
        for measure in seeds[0]
    }


def summary(curve: Curves, times: int = statistics.RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """How far the words' order goes towards the explanation's own, with an interval.

    Returns:
        {"measure", "pictures", "gain" (mean area of the words' order, log-odds), "own_gain" (of the
        explanation's order), "share" (their ratio), "low", "high" (95 % bootstrap over images),
        "sooner" (share of images with a gain above zero), "passed"}.
    """
    gain, own = curve.gain(), curve.gain("by_evidence")
    ratios = [
        (weights @ gain) / np.maximum(weights @ own, 1e-12)
        for weights in statistics.resamples(len(gain), times, seed)
    ]
    low, high = statistics.interval(np.concatenate(ratios))
    return {
        "measure": curve.measure,
        "pictures": len(gain),
        "gain": float(gain.mean()),
        "own_gain": float(own.mean()),
        "share": float(gain.sum() / max(own.sum(), 1e-12)),
        "low": low,
        "high": high,
        "sooner": float((gain > 0).mean()),
        "passed": bool(low > PASSED),
    }
