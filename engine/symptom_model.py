"""The contract of an explainable model: its class scores are weighted sums over symptoms."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from backbones.backbone import Backbone
from engine.method import ClassFeatureModel


class ClassSums(NamedTuple):
    """Logits of K classes, taken apart: f . (own_c + sum_j terms_cj), f an image's unit feature.

    All in float64, zero at the padding.
    """

    weight: Tensor  # [K, k] the share of each symptom in its class
    terms: Tensor  # [K, k, d]
    own: Tensor  # [K, d] what no symptom is part of


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
    """

    phrases: Mapping[str, Sequence[str]]
    mask: Tensor
    shared: bool = False
    takes_nearest: bool = False

    backbone: Backbone

    @property
    def logit_scale(self) -> Tensor:
        """Log inverse temperature of the cosines."""
        return self.backbone.logit_scale

    @property
    def owns(self) -> Tensor:
        """[K, k] True for a symptom that the symptom file lists for the class."""
        return self.mask

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
