"""Is an image unlike the training images? Then nothing said of it can be relied on."""

import contextlib
import sys
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from core.errors import InputError
from engine.loading import LoadedRun

PERCENTILE = 99  # of the validation images' distances: the threshold
FEWEST = 8  # training images, and validation images


@dataclass(frozen=True)
class TrainingDistance:
    """The distance of images to the training images, and from where on they are unlike them.

    It is the Mahalanobis distance of an image's unit feature to the nearest class mean, with one
    covariance for all classes, shrunk as in Ledoit and Wolf (2004). An image is marked as unlike
    the training images beyond the ``PERCENTILE``-th percentile of the validation images.

    Attributes:
        means: [K, d]. precision: [d, d]. threshold: a distance.
        false_alarms, test_images: how many of the test images are marked, of how many.

    Source: Lee et al., NeurIPS 2018, https://arxiv.org/abs/1807.03888, equation 2.
    """

    means: np.ndarray
    precision: np.ndarray
    threshold: float = float("inf")
    false_alarms: int = 0
    test_images: int = 0

    def of(self, features: Tensor) -> np.ndarray:
        """[n] distances of image features [n, d], of any norm."""
        gap = units(features)[:, None, :] - self.means
        squares = np.einsum("ncd,de,nce->nc", gap, self.precision, gap)
        return np.sqrt(np.maximum(squares, 0).min(axis=1))

    def unlike(self, features: Tensor) -> np.ndarray:
        """[n] bool: images further away than the threshold."""
        return self.of(features) > self.threshold

    def describe(self) -> str:
        """The measure and its false-alarm rate in a sentence."""
        rate = 100 * self.false_alarms / max(self.test_images, 1)
        return (
            "An image counts as unlike the training images if its Mahalanobis distance to them in "
            f"the feature space is above {self.threshold:.1f}, the {PERCENTILE}th percentile of "
            f"the validation images; {rate:.1f} % of the test images ({self.false_alarms} of "
            f"{self.test_images}) are marked, falsely"
        )


def units(features: Tensor) -> np.ndarray:
    """Features [n, d] in float64 with norm 1."""
    return F.normalize(features.double(), dim=-1).cpu().numpy()


def fit_distance(train: Tensor, labels: np.ndarray, val: Tensor, test: Tensor) -> TrainingDistance:
    """Fit to image features: train [n, d] with labels [n], val and test [*, d].

    Raises:
        InputError: there are too few images, or the training images are all the same.
    """
    from sklearn.covariance import LedoitWolf

    if min(len(train), len(val)) < FEWEST:
        raise InputError(
            f"there are {len(train)} training and {len(val)} validation images; "
            f"{FEWEST} of each are needed"
        )
    features = units(train)
    classes = np.unique(labels)
    means = np.stack([features[labels == c].mean(axis=0) for c in classes])
    within = features - means[np.searchsorted(classes, labels)]
    if not within.any():
        raise InputError("the training images of each class are all alike")
    precision = LedoitWolf(assume_centered=True).fit(within).precision_
    fitted = TrainingDistance(means, precision)
    threshold = float(np.percentile(fitted.of(val), PERCENTILE))
    marked = int((fitted.of(test) > threshold).sum())
    return TrainingDistance(means, precision, threshold, marked, len(test))


def training_distance(run: LoadedRun) -> TrainingDistance | None:
    """The ``TrainingDistance`` of a run; None and a line on stderr where it cannot be measured."""
    try:
        if run.method.learns_image_encoder:
            # Its backbone's features are not those that were kept.
            raise InputError(f"{run.cfg.TRAINER.NAME} learns the image encoder")
        with contextlib.redirect_stdout(sys.stderr):  # it may say that it encodes images
            train, val, test = (run.features(split) for split in ("train", "val", "test"))
        pictures = run.pictures("train")
        # Several findings an image are no classes to have a mean each: all images have one.
        labels = np.array([0 if run.findings else picture.label for picture in pictures])
        return fit_distance(train, labels, val, test)
    except InputError as error:
        print(
            f"not checked whether images are unlike the training images: {error}", file=sys.stderr
        )
        return None
