"""What a class's logit would be without some of its symptoms; the model is evaluated again."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.symptom_model import SymptomModel


@torch.no_grad()
def subset_logits(model: SymptomModel, features: Tensor, label: int, subsets: Tensor) -> np.ndarray:
    """Logits of one class if it had only some of its symptoms.

    Args:
        model: the model of an explainable run.
        features: [n, d] image features.
        label: the class's index.
        subsets: [m, k] bool, the symptoms that remain.

    Returns:
        [n, m] float64.
    """
    image = F.normalize(features.to(model.mask.device).double(), dim=-1)
    subsets = subsets.to(model.mask.device)
    if model.takes_nearest:
        units = F.normalize(model.symptom_features()[label].double(), dim=-1)  # [k, d]
        cosines = (image @ units.T)[:, None, :].masked_fill(~subsets, float("-inf"))
        return (model.logit_scale.double().exp() * cosines.amax(dim=-1)).cpu().numpy()
    return (image @ model.subset_features(label, subsets).T).cpu().numpy()


def logits_without(model: SymptomModel, features: Tensor) -> np.ndarray:
    """The logit of each class without each of its symptoms in turn.

    Args:
        model: the model of an explainable run. features: [n, d] image features.

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
