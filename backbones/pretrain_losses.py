"""The losses of the small CLIPs' training."""

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.pretrain_data import GROUPS


def contrastive_loss(
    image_features: Tensor, text_features: Tensor, scale: float | Tensor, true: Tensor
) -> Tensor:
    """Symmetric cross-entropy; the target is even over the pairs that are ``true`` [n, m]."""
    logits = scale * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()
    true = true.float()
    by_picture = -(logits.log_softmax(1) * true / true.sum(1, keepdim=True)).sum(1)
    by_caption = -(logits.log_softmax(0) * true / true.sum(0, keepdim=True)).sum(0)
    return (by_picture.mean() + by_caption.mean()) / 2


def naming_loss(scores: Tensor, permitted: Tensor, asked: Tensor) -> Tensor:
    """Cross-entropy of a linear head that names attributes.

    Args:
        scores: [n, values], of ``VALUES``.
        permitted: [n, values], the values that are right; several may be.
        asked: [n, values], where the value's attribute is asked at all.

    Returns:
        the mean over what is asked.
    """
    losses = []
    for group in GROUPS:
        rows = asked[:, group[0]].bool()
        if rows.any():
            chances = scores[rows][:, group].log_softmax(1)
            chances = chances.masked_fill(~permitted[rows][:, group], -torch.inf)
            losses.append(-chances.logsumexp(1))
    return torch.cat(losses).mean()


def asked_of(has: Tensor) -> Tensor:
    """[n, values] where an image has a value of the attribute, of [n, values] it has."""
    return torch.cat([has[:, g].any(1, keepdim=True).expand(-1, len(g)) for g in GROUPS], 1)
