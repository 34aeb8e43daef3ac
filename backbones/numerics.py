"""Tensor operations that backbones and methods share; gradients can be repeated bit for bit."""

import torch
from torch import Tensor
from torch.nn import functional as F


def at_least_fp32(x: Tensor) -> Tensor:
    """``x`` in fp32, or as it is where it is fp64 (the tests' precision)."""
    return x if x.dtype == torch.float64 else x.float()


def take(rows: Tensor, places: Tensor) -> Tensor:
    """``rows[places]`` with a gradient that can be repeated.

    The gradients of a row that is taken more than once are added in one fixed order and in fp32.
    Indexing would add them in the order of its threads, and half precision would lose most of them.

    Args:
        rows: [n, width].
        places: indices of any shape.

    Returns:
        [*places.shape, width] in the precision of ``rows``.
    """
    return F.embedding(places, at_least_fp32(rows)).to(rows.dtype)


def mean_divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student) of class probabilities, over batch * n_cls.

    Args:
        logits: [batch, n_cls], the student's. teacher: the same, the teacher's logits.
    """
    divergence = F.kl_div(
        logits.log_softmax(dim=1), teacher.log_softmax(dim=1), reduction="sum", log_target=True
    )
    return divergence / logits.numel()


def cosine_logits(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """Score images against class prompts by scaled cosine similarity.

    Args:
        image_features: [batch, dim], of any norm.
        text_features: [n_cls, dim] or [batch, n_cls, dim], of any norm.
        logit_scale: scalar, log inverse temperature; CLIP's is ln 100, about 4.6.

    Returns:
        [batch, n_cls] logits in at least fp32, within ``exp(logit_scale)`` of zero.

    Raises:
        ValueError: if the two features differ in ``dim``.

    Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, Figure 3.
    """
    if image_features.shape[-1] != text_features.shape[-1]:
        raise ValueError(
            f"image features have {image_features.shape[-1]} dimensions, "
            f"text features {text_features.shape[-1]}"
        )
    # Half-precision cosines would tie images that differ; autocast would make them half again.
    with torch.autocast(image_features.device.type, enabled=False):
        image_features = F.normalize(at_least_fp32(image_features), dim=-1)
        text_features = F.normalize(at_least_fp32(text_features), dim=-1)
        if text_features.dim() == 2:
            cosines = image_features @ text_features.t()
        else:
            cosines = torch.einsum("bd,bkd->bk", image_features, text_features)
        return logit_scale.exp() * cosines
