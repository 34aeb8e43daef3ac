"""Is an explanation true? Remove symptoms, or add them one by one, in order of contribution.

If contributions say what a prediction rests on, then removing the symptoms of the predicted class
from the greatest contribution downwards lowers its logit sooner than removing them in random
order, and adding them in that order raises it sooner. The model is evaluated again at each step,
so the weights and the norm of the remaining symptoms are its own.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from results import statistics
from trainers.vip import SymptomCLIP

from .contributions import Contributions, contributions

SUBSETS = 500  # of one size; all of them where there are no more
MEASURES = ("deletion", "insertion")


@dataclass(frozen=True)
class Curves:
    """Change of the predicted class's logit, image by image, at equal shares of its symptoms.

    ``by_contribution`` and ``random`` are [n, m], images by steps: the logit minus its value with
    all symptoms.
    """

    measure: str
    by_contribution: np.ndarray
    random: np.ndarray

    @property
    def gain(self) -> np.ndarray:
        """[n] area by which the order by contribution beats the random one, in logits."""
        sign = 1 if self.measure == "insertion" else -1
        return sign * (self.by_contribution - self.random).mean(axis=1)


@torch.no_grad()
def subset_logits(model: SymptomCLIP, features: Tensor, label: int, subsets: Tensor) -> np.ndarray:
    """Logits of one class if it had only some of its symptoms.

    Args:
        model: the model of a run that merges symptoms.
        features: [n, d] image features.
        label: the class's index.
        subsets: [m, k] bool, the symptoms that remain.

    Returns:
        [n, m] float64.
    """
    learned: Any = model.learned
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
        token = learned.token[0][label]
        repeated = symptoms.expand(len(subsets), -1, -1)
        weight = learned.attn(token.expand(len(subsets), -1), repeated, subsets)
        merged = token.double() + weight.double() @ symptoms.double()
    return (scale * image @ F.normalize(merged, dim=-1).T).cpu().numpy()


def curves(
    model: SymptomCLIP, features: Tensor, predicted: np.ndarray, seed: int = 0
) -> dict[str, Curves]:
    """Deletion and insertion by contribution and in random order.

    At least one symptom always remains. The random order's value at a step is the mean over all
    sets of that size (over ``SUBSETS`` random ones if there are more), so it has no noise of its
    own. Images whose predicted class has a single symptom are skipped.

    Args:
        model: the model of a run that merges symptoms.
        features: [n, d]. predicted: [n] labels.

    Returns:
        measure -> ``Curves``; empty if no predicted class has two symptoms.
    """
    parts = contributions(model, features)
    generator = np.random.default_rng(seed)
    counts = model.mask.sum(dim=1).tolist()
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {measure: [] for measure in MEASURES}
    for label in tqdm(np.unique(predicted), desc="removing symptoms", leave=False, disable=None):
        if counts[label] < 2:
            continue
        chosen = np.flatnonzero(predicted == label)
        ranked = _ranked(model, parts, chosen, label)
        of_class = _curves_of_class(_Asker(model, features[chosen], label), ranked, generator)
        for measure, (own, chance) in of_class.items():
            found[measure].append((_stretched(own, max(counts)), _stretched(chance, max(counts))))
    return {
        measure: Curves(measure, *(np.concatenate(side) for side in zip(*pairs, strict=True)))
        for measure, pairs in found.items()
        if pairs
    }


def _ranked(model: SymptomCLIP, parts: Contributions, chosen: np.ndarray, label: int) -> np.ndarray:
    """[n, k] the symptoms of class ``label`` for each chosen image, the greatest part first."""
    # With max one symptom is the whole logit, whatever its sign: nearer counts more.
    value = parts.similarity if model.merge == "max" else parts.symptom
    k = int(model.mask[label].sum())
    return np.argsort(-value[chosen, label, :k], axis=1, kind="stable")


def _curves_of_class(
    ask: "_Asker", ranked: np.ndarray, generator: np.random.Generator
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """measure -> [n, k] curves in the order ``ranked`` and in random order."""
    k = ranked.shape[1]
    sizes = range(1, k + 1)
    chance = np.stack([ask.mean(_subsets(k, m, generator)) for m in sizes], axis=1)
    first = np.stack([ask.own(ranked[:, :m]) for m in sizes], axis=1)
    last = np.stack([ask.own(ranked[:, k - m :]) for m in sizes], axis=1)
    full = first[:, -1:]
    return {
        # From all symptoms down to one.
        "deletion": ((last - full)[:, ::-1], (chance - full)[:, ::-1]),
        "insertion": (first - full, chance - full),
    }


class _Asker:
    """The logit of one class on some images, for any sets of its symptoms."""

    def __init__(self, model: SymptomCLIP, features: Tensor, label: int) -> None:
        self.model, self.features, self.label = model, features, label

    def mean(self, subsets: Sequence[Any]) -> np.ndarray:
        """[n] mean over the sets, the same for every image."""
        return self._logits(subsets).mean(axis=1)

    def own(self, subsets: np.ndarray) -> np.ndarray:
        """[n] logit of each image with its own set [n, m]."""
        different, which = np.unique(np.sort(subsets, axis=1), axis=0, return_inverse=True)
        logits = self._logits(different)
        return logits[np.arange(len(logits)), which.ravel()]

    def _logits(self, subsets: Sequence[Any] | np.ndarray) -> np.ndarray:
        mask = torch.zeros(len(subsets), self.model.mask.shape[1], dtype=torch.bool)
        mask.scatter_(1, torch.as_tensor(np.array(subsets)), True)
        return subset_logits(self.model, self.features, self.label, mask)


def _subsets(k: int, m: int, generator: np.random.Generator) -> list[Any]:
    if math.comb(k, m) <= SUBSETS:
        return list(itertools.combinations(range(k), m))
    return [generator.choice(k, size=m, replace=False) for _ in range(SUBSETS)]


def _stretched(curve: np.ndarray, steps: int) -> np.ndarray:
    """[n, m] curves at ``steps`` equal shares, so that classes of any number of symptoms join."""
    have, wanted = np.linspace(0, 1, curve.shape[1]), np.linspace(0, 1, steps)
    return np.stack([np.interp(wanted, have, row) for row in curve])


def summary(
    curve: Curves, times: int = statistics.RESAMPLES, seed: int = 0
) -> dict[str, str | float | int]:
    """How much sooner the order by contribution acts than a random one, with an interval.

    Returns:
        {"measure", "gain" (mean area, logits), "low", "high" (95 % bootstrap over images),
        "sooner" (share of images with a gain above zero), "pictures"}.
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
