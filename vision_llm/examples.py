"""The training images nearest to each image, by the features that a frozen backbone keeps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from yacs.config import CfgNode

from backbones.loading import backbone_of, with_preprocessing
from core.errors import InputError
from datasets.features import FrozenFeatures
from datasets.pictures import Picture
from datasets.views import ViewManager


def image_features(cfg: CfgNode, dataset: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    """[n_train, d] and [n, d] unit features of the training split and of ``split``.

    They are the ones that runs of ``train.py`` keep: what is there is read.

    Args:
        cfg: with the backbone's settings. dataset: of ``cfg``.
    """
    device = torch.device("cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu")
    backbone = backbone_of(cfg, device)
    cfg = with_preprocessing(cfg, backbone)
    frozen = FrozenFeatures(cfg, ViewManager(cfg, dataset), backbone)
    train, wanted = (frozen.of_split(name).double().numpy() for name in ("train", split))
    return _unit(train), _unit(wanted)


def nearest(
    features: np.ndarray,
    train_features: np.ndarray,
    names: Sequence[str],
    train_names: Sequence[str],
    count: int,
) -> list[list[int]]:
    """For each image the ``count`` nearest training images, the nearest last.

    A training image with the bytes of the image itself is never among them.

    Args:
        features: [n, d] unit rows. train_features: [n_train, d].
        names, train_names: fingerprints of the files, which tell equal bytes.

    Raises:
        InputError: there are fewer training images.
    """
    chosen = []
    for row, name in zip(features, names, strict=True):
        order = np.argsort(-(train_features @ row), kind="stable")
        found = [int(i) for i in order if train_names[i] != name][:count]
        if len(found) < count:
            raise InputError(f"--examples is {count}; there are {len(found)} training images")
        chosen.append(found[::-1])
    return chosen


def places_of(images: Sequence[Picture], everything: Sequence[Picture]) -> list[int]:
    """Where ``images`` are among ``everything``."""
    places = {image.id: place for place, image in enumerate(everything)}
    return [places[image.id] for image in images]


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)
