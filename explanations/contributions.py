"""A logit, taken apart into what each symptom adds to it. Nothing is approximated."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Contributions:
    """Parts of the logits of n pictures, for K classes of at most k symptoms; float64.

    Where a class has fewer symptoms, ``similarity`` is NaN and the others are 0.
    """

    similarity: np.ndarray  # [n, K, k] cosine of picture and symptom
    weight: np.ndarray  # [n, K, k] its share in the class: MeP's attention, 1/k_c, or 0 or 1
    symptom: np.ndarray  # [n, K, k] what the symptom adds to the class's logit
    own: np.ndarray  # [n, K] what the class's own token g adds; 0 without MeP

    @property
    def logits(self):
        """[n, K], the sum of all parts."""
        return self.symptom.sum(axis=2) + self.own


@torch.no_grad()
def contributions(model, image_features):
    """Take the logits of ``model`` apart.

    With a merge by prompt the class feature is s_c = g_c + sum_j a_cj T_cj, and the logit
    s * f.s_c / |s_c| for a picture's unit feature f: so g_c adds s * f.g_c / |s_c| and symptom j
    adds s * a_cj * f.T_cj / |s_c|. ``mean`` is the same without g, with unit T and a = 1/k_c. With
    ``max`` the nearest symptom is the whole logit.

    Args:
        model: ``SymptomCLIP``.
        image_features: [n, d], of any norm.

    Returns:
        ``Contributions``; they sum to the model's logits up to rounding.

    Source: Fang et al., MICCAI 2024, equations 2 and 3.
    """
    features = model.symptom_features()  # [K, k, d]
    mask = model.mask
    image = F.normalize(image_features.to(features.device).double(), dim=-1)
    scale = model.logit_scale.double().exp()
    units = F.normalize(features.double(), dim=-1)
    similarity = torch.einsum("nd,ckd->nck", image, units)
    own = torch.zeros(len(image), len(mask), dtype=torch.double, device=image.device)
    if model.merge == "max":
        nearest = similarity.masked_fill(~mask, float("-inf")).argmax(dim=-1)
        weight = F.one_hot(nearest, mask.shape[1]).double()
        parts = scale * weight * similarity
    else:
        if model.merge == "prompt":
            weight = model.attention(features).double()
            terms = weight.unsqueeze(-1) * features.double()  # [K, k, d]
            token = model.learned.token[0].double()
        else:
            weight = mask.double() / mask.sum(dim=1, keepdim=True)
            terms = weight.unsqueeze(-1) * units
            token = torch.zeros_like(terms[:, 0])
        norm = (token + terms.sum(dim=1)).norm(dim=-1)  # [K]
        parts = scale * torch.einsum("nd,ckd->nck", image, terms) / norm[:, None]
        own = scale * (image @ token.T) / norm
        weight = weight.expand_as(parts)
    return Contributions(
        similarity.masked_fill(~mask, float("nan")).cpu().numpy(),
        weight.cpu().numpy(),
        parts.cpu().numpy(),
        own.cpu().numpy(),
    )
