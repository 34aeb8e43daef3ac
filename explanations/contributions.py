"""A logit as the sum of what each symptom adds to it, without approximation.

Cosines of CLIP are positive, and so are these parts: they say how a logit is computed, not what
speaks for a class. Evidence is measured from the average training image (``evidence.py``).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.symptom_model import SymptomModel


@dataclass(frozen=True)
class Contributions:
    """Parts of the logits of n images, for K classes that read at most k symptoms; float64.

    Where a class reads fewer symptoms, ``similarity`` is NaN and the others are 0.
    """

    similarity: np.ndarray  # [n, K, k] cosine of image and symptom
    weight: np.ndarray  # [n, K, k] its share in the class: attention, 1/k_c, learned, or 0 or 1
    symptom: np.ndarray  # [n, K, k] what the symptom adds to the class's logit
    own: np.ndarray  # [n, K] what the class's own token g adds; 0 without MeP

    @property
    def logits(self) -> np.ndarray:
        """[n, K], the sum of all parts."""
        return self.symptom.sum(axis=2) + self.own


@torch.no_grad()
def contributions(model: SymptomModel, image_features: Tensor) -> Contributions:
    """Split the logits of ``model`` into contributions of the symptoms.

    ViP: with a merge by prompt the class feature is s_c = g_c + sum_j a_cj T_cj, and the logit is
    s * f.s_c / |s_c| for an image's unit feature f: so g_c adds s * f.g_c / |s_c| and symptom j
    adds s * a_cj * f.T_cj / |s_c|. ``mean`` is the same without g, with unit T and a = 1/k_c. With
    ``max`` the nearest symptom is the whole logit. ConceptBottleneck: symptom j adds s * a_cj times
    its cosine, whichever class's symptom it is.

    Args:
        model: the model of an explainable run.
        image_features: [n, d], of any norm.

    Returns:
        ``Contributions``; they sum to the model's logits up to rounding.

    Source: Fang et al., MICCAI 2024, equations 2 and 3.
    """
    features = model.symptom_features()  # [K, k, d]
    image = F.normalize(image_features.to(features.device).double(), dim=-1)
    similarity = torch.einsum("nd,ckd->nck", image, F.normalize(features.double(), dim=-1))
    if model.takes_nearest:
        weight, symptom, own = _of_nearest(model, similarity)
    else:
        sums = model.sums(features)
        symptom = torch.einsum("nd,ckd->nck", image, sums.terms)
        weight, own = sums.weight.expand_as(symptom), image @ sums.own.T
    similarity = similarity.masked_fill(~model.mask, float("nan"))
    return Contributions(*(part.cpu().numpy() for part in (similarity, weight, symptom, own)))


def _of_nearest(model: SymptomModel, similarity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, parts of the symptoms and parts of the class tokens with ``max``."""
    nearest = similarity.masked_fill(~model.mask, float("-inf")).argmax(dim=-1)
    weight = F.one_hot(nearest, model.mask.shape[1]).double()
    symptom = model.logit_scale.double().exp() * weight * similarity
    return weight, symptom, torch.zeros_like(symptom[..., 0])
