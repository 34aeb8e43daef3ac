"""The contract of an explainable model: its class scores are weighted sums over symptoms."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backbones.backbone import Backbone
from core.errors import InputError
from engine.method import ClassFeatureModel

MOST_KEPT = 2000  # features of phrases that a loaded run keeps; the oldest are dropped


class ClassSums(NamedTuple):
    """Logits of K classes, taken apart: f . (own_c + sum_j terms_cj), f an image's unit feature.

    All in float64, zero at the padding.
    """

    weight: Tensor  # [K, k] the share of each symptom in its class
    terms: Tensor  # [K, k, d]
    own: Tensor  # [K, d] what no symptom is part of


class PhraseFeatures:
    """Features [d] of phrases, each encoded by itself and once.

    What stands beside a phrase then changes no bit of its feature, and a model that reads other
    symptoms with the same learned parameters encodes only the phrases that are new.
    """

    def __init__(self) -> None:
        self._known: dict[tuple, Tensor] = {}

    def of(self, keys: Sequence[tuple], encode: Callable[[tuple], Tensor]) -> Tensor:
        """[n, d] features of ``keys``; ``encode`` makes [1, d] of one that is not known."""
        with torch.no_grad():
            features = []
            for key in keys:
                if key not in self._known:
                    self._known[key] = encode(key)
                features.append(self._known[key])
        while len(self._known) > MOST_KEPT:
            del self._known[next(iter(self._known))]
        return torch.cat(features)


class SymptomModel(ClassFeatureModel):
    """A model whose class scores follow from the symptoms that the class reads.

    A class reads its own symptoms, or, where ``shared``, those of all classes: then column j is the
    same symptom for every class, and it may speak for a class whose own it is not.

    Attributes:
        phrases: class name -> the k_c symptoms that the class reads, in the order of the classes.
        mask: [K, k] True for a symptom that the class reads, False for padding to the longest list.
        shared: whether all classes read the same symptoms.
        takes_nearest: whether a logit is the temperature times the greatest cosine of the class's
            symptoms; else it is a sum, ``sums``.
        shares: [K, k] factors of the symptoms' shares in their classes (``reweigh``); None: all 1.
        kept: features of single phrases, in a model that learns no more (``keep_features``).
    """

    phrases: Mapping[str, Sequence[str]]
    mask: Tensor
    shared: bool = False
    takes_nearest: bool = False
    shares: Tensor | None = None
    kept: PhraseFeatures | None = None

    backbone: Backbone

    @property
    def logit_scale(self) -> Tensor:
        """Log inverse temperature of the cosines."""
        return self.backbone.logit_scale

    @property
    def owns(self) -> Tensor:
        """[K, k] True for a symptom that the symptom file lists for the class."""
        return self.mask

    def keep_features(self, known: PhraseFeatures | None = None) -> None:
        """From now on encode each phrase by itself and once; for a model that learns no more.

        Args:
            known: ``kept`` of a model with the same learned parameters, which then is shared.
        """
        self.kept = PhraseFeatures() if known is None else known
        self._kept_at = self.versions()

    def kept_features(self) -> PhraseFeatures | None:
        """``kept``, emptied where a learned number changed; None for a model that still learns."""
        if self.kept is None or self.training:
            return None
        if self._kept_at != self.versions():
            self.keep_features()
        return self.kept

    def reweigh(self, weights: Mapping[str, Sequence[float]]) -> None:
        """Multiply the share of each symptom in its class; the shares of a class sum to one again.

        The share is MeP's attention weight, 1 / k_c of a mean, or a learned concept weight. A
        factor of 1 leaves it as it is. With a factor of 0 the symptom adds nothing to its class but
        is still read: it keeps its similarity, its heat map and its row in an explanation. A
        symptom that is switched off is not read at all; of ConceptBottleneck, where all classes
        read it, it is then gone for the other classes too.

        Args:
            weights: class name -> a factor, at least 0, for each of the class's own symptoms.

        Raises:
            InputError: all factors of a class are 0, or the class has no shares (merge by max).
        """
        factors = torch.ones(self.mask.shape, dtype=torch.float64)
        for c, name in enumerate(self.phrases):
            own = self.owns[c].nonzero().flatten().cpu()
            factors[c, own] = torch.tensor(weights[name], dtype=torch.float64)
            if not factors[c, own].any():
                raise InputError(f"all symptoms of class {name!r} have the weight 0; raise one")
        if bool((factors == 1).all()):
            self.shares = None
            return
        if self.takes_nearest:
            raise InputError(
                "this run takes the nearest symptom of each class (MERGE max), so symptoms have no "
                "weights; switch a symptom off instead"
            )
        self.shares = factors.to(self.mask.device)

    def reweighed(self, weight: Tensor, shares: Tensor | None) -> Tensor:
        """Shares [..., k], which sum to one, multiplied by ``shares`` and summing to one again."""
        if shares is None:
            return weight
        changed = weight * shares.to(weight.dtype)
        return changed / changed.sum(dim=-1, keepdim=True)

    def shares_of(self, label: int) -> Tensor | None:
        """[k] the factors of one class; None where all are 1."""
        return None if self.shares is None else self.shares[label]

    @abstractmethod
    def symptom_features(self) -> Tensor:
        """[K, k, d] features of what each class reads, of any norm; any where padded."""

    @abstractmethod
    def untrained_features(self) -> Tensor:
        """The same of the phrases alone: what their words mean to the text encoder."""

    @abstractmethod
    def sums(self, features: Tensor) -> ClassSums:
        """How the logits follow from ``symptom_features()``; not where ``takes_nearest``."""

    @abstractmethod
    def subset_features(self, label: int, subsets: Tensor) -> Tensor:
        """What a class would be if it read only some of its symptoms; not where ``takes_nearest``.

        Args:
            subsets: [m, k] bool, the symptoms that remain.

        Returns:
            [m, d] float64 v; the logit of an image with the unit feature f is f . v.
        """
