"""What a class's logit would be without some of its symptoms; the model is evaluated again."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from trainers.vip import SymptomCLIP


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


def logits_without(model: SymptomCLIP, features: Tensor) -> np.ndarray:
    """The logit of each class without each of its symptoms in turn.

    Args:
        model: the model of a run that merges symptoms. features: [n, d] image features.

    Returns:
        [n, K, k] float64; NaN for padding and for the only symptom of a class.
    """
    n_cls, k = model.mask.shape
    found = np.full((len(features), n_cls, k), np.nan)
    for c, count in enumerate(model.mask.sum(dim=1).tolist()):
        if count > 1:
            subsets = model.mask[c].repeat(count, 1)
            subsets[range(count), range(count)] = False
            found[:, c, :count] = subset_logits(model, features, c, subsets)
    return found
