"""Training images that are not as many of each class: weights of the classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from engine.method import Method


def balanced_weights(labels: Sequence[int], n_cls: int) -> Tensor:
    """[n_cls] n / (n_cls n_c) of n images, n_c of class c: what scikit-learn calls balanced.

    A class without images has the weight 0.
    """
    counts = torch.bincount(torch.tensor(labels), minlength=n_cls)
    return torch.where(counts > 0, len(labels) / (n_cls * counts.clamp(min=1)), 0.0)


def check_balance(cfg: Any, method: Method) -> None:
    """That the options for unbalanced training images have an effect on the method.

    Raises:
        InputError: naming the option that has none.
    """
    if not method.fitted_at_once:
        return
    advice = f"has no effect on {method.name}, which is fitted at once; remove it"
    if cfg.DATALOADER.TRAIN_X.BALANCED:
        raise InputError(f"DATALOADER.TRAIN_X.BALANCED {advice}")
    if cfg.TRAIN.CLASS_WEIGHTS != "none" and not method.fits_class_weights:
        raise InputError(f"TRAIN.CLASS_WEIGHTS {advice}")


def check_unbalanced(cfg: Any) -> None:
    """Raise InputError for an option that counts classes, where an image has several findings."""
    for key, is_set in (
        ("DATALOADER.TRAIN_X.BALANCED", cfg.DATALOADER.TRAIN_X.BALANCED),
        ("TRAIN.CLASS_WEIGHTS", cfg.TRAIN.CLASS_WEIGHTS != "none"),
    ):
        if is_set:
            raise InputError(f"{key} counts one class an image; remove it with DATASET.MULTI_LABEL")
