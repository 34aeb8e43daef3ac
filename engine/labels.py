"""What a batch's labels ask of a model's logits: one class an image, or several findings.

One class: integers [batch]. Several findings: floats [batch, F] of 1, 0 and NaN for unknown; the
model then has 2F classes, the F findings and the absence of each in the same order, and the score
of a finding is the difference of its pair, as in CheXzero's zero-shot pairs (Tiu et al., Nature
Biomedical Engineering 2022, https://doi.org/10.1038/s41551-022-00936-9).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def labels_of(images: Sequence[Any]) -> Tensor:
    """The labels of a dataset's images: [n] integers, or [n, F] floats."""
    return torch.tensor([image.label for image in images])


def has_findings(label: Tensor) -> bool:
    """Whether labels are of several findings."""
    return label.is_floating_point()


def finding_logits(logits: Tensor) -> Tensor:
    """[batch, 2F] logits of findings and of their absence -> [batch, F] log odds of the findings.

    Their sigmoid is the softmax over each pair.
    """
    present, absent = logits.chunk(2, dim=1)
    return present - absent


def label_loss(logits: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """The cross-entropy of a batch; of findings, the mean binary one over the known labels.

    Args:
        logits: [batch, n_cls], or [batch, 2F].
        label: [batch] integers, or [batch, F] floats with NaN for unknown.
        class_weights: [n_cls], how much an image of each class counts; None: all alike. The mean is
            over the weights of the batch. Findings have none.

    Returns:
        A scalar; zero where no label is known.
    """
    if not has_findings(label):
        weight = None if class_weights is None else class_weights.to(logits.dtype)
        return F.cross_entropy(logits, label, weight)
    odds = finding_logits(logits)
    known = ~label.isnan()
    target = torch.where(known, label, 0.0).to(odds.dtype)
    losses = F.binary_cross_entropy_with_logits(odds, target, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def share_correct(logits: Tensor, label: Tensor) -> Tensor:
    """The share of images, or of the known findings of all images, that are predicted correctly.

    A scalar in fp32 on the logits' device; nothing is read from there. Zero without a known label.
    """
    if not has_findings(label):
        return (logits.argmax(dim=1) == label).float().mean()
    known = ~label.isnan()
    right = ((finding_logits(logits) > 0) == (label > 0.5)) & known
    return right.sum() / known.sum().clamp(min=1)
