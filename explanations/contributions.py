"""A logit as the sum of what each symptom adds to it, without approximation.

Cosines of CLIP are positive, and so are these parts: they say how a logit is computed, not what
speaks for a class. Evidence is measured from the average training image (``evidence.py``).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.vip import SymptomCLIP


@dataclass(frozen=True)
class Contributions:
    """Parts of the logits of n images, for K classes of at most k symptoms; float64.

    Where a class has fewer symptoms, ``similarity`` is NaN and the others are 0.
    """

    similarity: np.ndarray  # [n, K, k] cosine of image and symptom
    weight: np.ndarray  # [n, K, k] its share in the class: MeP's attention, 1/k_c, or 0 or 1
    symptom: np.ndarray  # [n, K, k] what the symptom adds to the class's logit
    own: np.ndarray  # [n, K] what the class's own token g adds; 0 without MeP

    @property
    def logits(self) -> np.ndarray:
        """[n, K], the sum of all parts."""
        return self.symptom.sum(axis=2) + self.own


@torch.no_grad()
def contributions(model: SymptomCLIP, image_features: Tensor) -> Contributions:
    """Split the logits of ``model`` into contributions of the symptoms.

    With a merge by prompt the class feature is s_c = g_c + sum_j a_cj T_cj, and the logit is
    s * f.s_c / |s_c| for an image's unit feature f: so g_c adds s * f.g_c / |s_c| and symptom j
    adds s * a_cj * f.T_cj / |s_c|. ``mean`` is the same without g, with unit T and a = 1/k_c. With
    ``max`` the nearest symptom is the whole logit.

    Args:
        model: the model of a run that merges symptoms.
        image_features: [n, d], of any norm.

    Returns:
        ``Contributions``; they sum to the model's logits up to rounding.

    Source: Fang et al., MICCAI 2024, equations 2 and 3.
    """
    features = model.symptom_features()  # [K, k, d]
    image = F.normalize(image_features.to(features.device).double(), dim=-1)
    similarity = torch.einsum("nd,ckd->nck", image, F.normalize(features.double(), dim=-1))
    if model.merge == "max":
        weight, symptom, own = _of_nearest(model, similarity)
    else:
        weight, symptom, own = _of_sum(model, features, image)
    similarity = similarity.masked_fill(~model.mask, float("nan"))
    return Contributions(*(part.cpu().numpy() for part in (similarity, weight, symptom, own)))


def _of_nearest(model: SymptomCLIP, similarity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, parts of the symptoms and parts of the class tokens with ``max``."""
    nearest = similarity.masked_fill(~model.mask, float("-inf")).argmax(dim=-1)
    weight = F.one_hot(nearest, model.mask.shape[1]).double()
    symptom = model.logit_scale.double().exp() * weight * similarity
    return weight, symptom, torch.zeros_like(symptom[..., 0])


def _of_sum(model: SymptomCLIP, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with ``prompt`` and ``mean``, whose class feature is a sum."""
    scale = model.logit_scale.double().exp()
    if model.merge == "prompt":
        weight = model.attention(features).double()
        terms = weight.unsqueeze(-1) * features.double()  # [K, k, d]
        learned: Any = model.learned
        token = learned.token[0].double()
    else:
        weight = model.mask.double() / model.mask.sum(dim=1, keepdim=True)
        terms = weight.unsqueeze(-1) * F.normalize(features.double(), dim=-1)
        token = torch.zeros_like(terms[:, 0])
    norm = (token + terms.sum(dim=1)).norm(dim=-1)  # [K]
    symptom = scale * torch.einsum("nd,ckd->nck", image, terms) / norm[:, None]
    return weight.expand_as(symptom), symptom, scale * (image @ token.T) / norm
