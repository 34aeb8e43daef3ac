"""Is the explanation true? Take symptoms away, or bring them in, by their contribution.

If contributions say what the answer rests on, then taking the symptoms of the predicted class away
from the greatest contribution down lowers its logit sooner than taking them in random order, and
bringing them in in that order raises it sooner. The model is asked again at each step, so the
weights and the norm of what remains are its own.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from results import statistics

from .contributions import contributions

SUBSETS = 500  # of one size; all of them where there are no more
MEASURES = ("deletion", "insertion")


@dataclass(frozen=True)
class Curves:
    """Mean change of the predicted class's logit over pictures, at equal shares of its symptoms.

    ``by_contribution`` and ``random`` are [n, m], pictures by steps: the logit less what it is with
    all symptoms there.
    """

    measure: str
    by_contribution: np.ndarray
    random: np.ndarray

    @property
    def gain(self):
        """[n] area by which the order by contribution beats the random one, in logits."""
        sign = 1 if self.measure == "insertion" else -1
        return sign * (self.by_contribution - self.random).mean(axis=1)


@torch.no_grad()
def subset_logits(model, features, label, subsets):
    """Logits of one class when it had only some of its symptoms.

    Args:
        model: ``SymptomCLIP``.
        features: [n, d] image features.
        label: the class's index.
        subsets: [m, k] bool, which of its symptoms are there.

    Returns:
        [n, m] float64.
    """
    image = F.normalize(features.to(model.mask.device).double(), dim=-1)
    symptoms = model.symptom_features()[label]  # [k, d]
    subsets = subsets.to(symptoms.device)
    scale = model.logit_scale.double().exp()
    units = F.normalize(symptoms.double(), dim=-1)
    if model.merge == "max":
        cosines = (image @ units.T)[:, None, :].masked_fill(~subsets, float("-inf"))
        return (scale * cosines.amax(dim=-1)).cpu().numpy()
    if model.merge == "mean":
        merged = subsets.double() @ units
    else:
        token = model.learned.token[0][label]
        repeated = symptoms.expand(len(subsets), -1, -1)
        weight = model.learned.attn(token.expand(len(subsets), -1), repeated, subsets)
        merged = token.double() + weight.double() @ symptoms.double()
    return (scale * image @ F.normalize(merged, dim=-1).T).cpu().numpy()


def curves(model, features, predicted, seed=0):
    """Deletion and insertion by contribution and in random order.

    At least one symptom always stays. The random order's value at a step is the mean over all sets
    of that size (over ``SUBSETS`` drawn ones where there are more), so it has no noise of its own.
    Pictures whose predicted class has a single symptom say nothing and are left out.

    Args:
        model: ``SymptomCLIP``.
        features: [n, d]. predicted: [n] labels.

    Returns:
        measure -> ``Curves``; empty if no class has two symptoms.
    """
    parts = contributions(model, features)
    generator = np.random.default_rng(seed)
    counts = model.mask.sum(dim=1).tolist()
    steps = max(counts)
    found = {measure: ([], []) for measure in MEASURES}
    for label in tqdm(np.unique(predicted), desc="taking symptoms away", leave=False, disable=None):
        k = counts[label]
        if k < 2:
            continue
        chosen = np.flatnonzero(predicted == label)
        # With max one symptom is the whole logit, whatever its sign: nearer counts more.
        ranking = parts.similarity if model.merge == "max" else parts.symptom
        order = np.argsort(-ranking[chosen, label, :k], axis=1, kind="stable")
        ask = _Asker(model, features[chosen], label)
        sizes = range(1, k + 1)
        chance = np.stack([ask.mean(_subsets(k, m, generator)) for m in sizes], axis=1)
        first = np.stack([ask.own(order[:, :m]) for m in sizes], axis=1)
        last = np.stack([ask.own(order[:, k - m :]) for m in sizes], axis=1)
        full = first[:, -1:]
        for measure, values in (("insertion", first), ("deletion", last)):
            pair = (values - full, chance - full)
            if measure == "deletion":  # from all symptoms down to one
                pair = tuple(curve[:, ::-1] for curve in pair)
            for kept, curve in zip(found[measure], pair, strict=True):
                kept.append(_stretched(curve, steps))
    return {
        measure: Curves(measure, np.concatenate(own), np.concatenate(chance))
        for measure, (own, chance) in found.items()
        if own
    }


class _Asker:
    """The logit of one class on some pictures, for any sets of its symptoms."""

    def __init__(self, model, features, label):
        self.model, self.features, self.label = model, features, label
        self.width = model.mask.shape[1]

    def mean(self, subsets):
        """[n] mean over the sets, the same for every picture."""
        return subset_logits(self.model, self.features, self.label, self._mask(subsets)).mean(
            axis=1
        )

    def own(self, subsets):
        """[n] logit of each picture with its own set [n, m]."""
        different, which = np.unique(np.sort(subsets, axis=1), axis=0, return_inverse=True)
        logits = subset_logits(self.model, self.features, self.label, self._mask(different))
        return logits[np.arange(len(logits)), which.ravel()]

    def _mask(self, subsets):
        mask = torch.zeros(len(subsets), self.width, dtype=torch.bool)
        return mask.scatter(1, torch.as_tensor(np.array(subsets)), True)


def _subsets(k, m, generator):
    if math.comb(k, m) <= SUBSETS:
        return list(itertools.combinations(range(k), m))
    return [generator.choice(k, size=m, replace=False) for _ in range(SUBSETS)]


def _stretched(curve, steps):
    """[n, m] curves at ``steps`` equal shares, so that classes with fewer symptoms join in."""
    have, wanted = np.linspace(0, 1, curve.shape[1]), np.linspace(0, 1, steps)
    return np.stack([np.interp(wanted, have, row) for row in curve])


def summary(curve, times=statistics.RESAMPLES, seed=0):
    """How much sooner the order by contribution acts than a random one, with an interval.

    Returns:
        {"measure", "gain" (mean area, logits), "low", "high" (95 % bootstrap over pictures),
        "sooner" (share of pictures with a gain above zero), "pictures"}.
    """
    gain = curve.gain
    means = [
        weights @ gain / weights.sum(axis=1)
        for weights in statistics.resamples(len(gain), times, seed)
    ]
    low, high = statistics.interval(np.concatenate(means))
    return {
        "measure": curve.measure,
        "gain": float(gain.mean()),
        "low": low,
        "high": high,
        "sooner": float((gain > 0).mean()),
        "pictures": len(gain),
    }
