"""Where in an image a symptom is seen: a heat map for each symptom.

``patches`` compares each patch's feature with the symptom; ``gradient`` asks what each place adds
to the similarity of the whole image. docs/heatmaps.md says how well they find what is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from core.errors import InputError
from engine.loading import LoadedRun

from .what_if import merge_of

METHODS = ("gradient", "patches")
DEFAULT = "gradient"  # "patches" finds less than a map that always points to the centre
LONGEST = 640  # pixels of the longer side of an image with its maps


@dataclass(frozen=True)
class Symptom:
    """A symptom of a class, by names and by its place among all symptoms of the model."""

    classname: str
    phrase: str
    row: int
    column: int


@dataclass(frozen=True)
class HeatMaps:
    """Maps of all symptoms on one image.

    Attributes:
        image: upright, RGB, at most ``LONGEST`` pixels a side.
        symptoms: S of them, class by class. method: one of ``METHODS``.
        maps: [S, H, W] of the image's size: heat above the image's mean, below it negative; NaN
            where the model did not look: outside the central square, unless its preprocessing
            squeezes the whole image into a square.
    """

    image: Image.Image
    symptoms: Sequence[Symptom]
    maps: np.ndarray
    method: str

    @property
    def limit(self) -> float:
        """The most heat of any symptom: one scale for all, so that a weak map looks weak."""
        return float(np.nanmax(self.maps, initial=0))


def heat_maps(run: LoadedRun, image: str | Path | Image.Image, method: str = DEFAULT) -> HeatMaps:
    """The heat maps of every symptom on one image, for the run's trained symptoms.

    Raises:
        InputError: the run is not explainable, the image cannot be read, or
            ``method`` is not one of ``METHODS``.
    """
    opened = run.opened(image)
    maps = maps_of_views(run, run.views([opened]), method)[0]
    shown = opened.copy()
    shown.thumbnail((LONGEST, LONGEST))
    width, height = shown.size
    if run.cfg.INPUT.RESIZE_MODE != "squash":
        width = height = min(shown.size)
    full = np.full((len(maps), shown.height, shown.width), np.nan, np.float32)
    top, left = (shown.height - height) // 2, (shown.width - width) // 2
    full[:, top : top + height, left : left + width] = stretched(maps, height, width)
    return HeatMaps(shown, symptoms_of(run), full, method)


def maps_of_views(run: LoadedRun, views: Tensor, method: str = DEFAULT) -> np.ndarray:
    """[n, S, h, w] maps of views [n, 3, size, size], of the size of the backbone's grid.

    Each is heat above its own mean.
    """
    if method not in METHODS:
        raise InputError(f"heat maps: method {method!r}; choose one of {', '.join(METHODS)}")
    model, _ = merge_of(run)
    backbone = model.backbone
    with torch.no_grad():
        features = model.symptom_features()
    of = symptoms_of(run)
    features = features[[s.row for s in of], [s.column for s in of]]  # [S, d]
    if method == "gradient":
        maps = backbone.gradient_maps(views, features)
    else:
        maps = patch_maps(backbone.patch_tokens(views), features)
    maps = maps - maps.mean(dim=(2, 3), keepdim=True)
    return maps.float().cpu().numpy()


def patch_maps(patches: Tensor, features: Tensor) -> Tensor:
    """[n, S, h, w] cosines of patches [n, h * w, d] and features [S, d]; h = w.

    Source: MaskCLIP, Zhou et al., ECCV 2022, https://arxiv.org/abs/2112.01071, section 3.2.
    """
    cosines = F.normalize(patches, dim=-1) @ F.normalize(features, dim=-1).T
    side = round(patches.shape[1] ** 0.5)
    return cosines.transpose(1, 2).unflatten(2, (side, side))


def symptoms_of(run: LoadedRun) -> list[Symptom]:
    """The symptoms of a run, class by class."""
    model, _ = merge_of(run)
    return [
        Symptom(classname, phrase, row, column)
        for row, (classname, phrases) in enumerate(model.phrases.items())
        for column, phrase in enumerate(phrases)
        if model.owns[row, column]
    ]


def stretched(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps [..., h, w] stretched bilinearly to [..., height, width]."""
    flat = torch.from_numpy(maps.reshape(1, -1, *maps.shape[-2:]))
    large = F.interpolate(flat, size=(height, width), mode="bilinear", align_corners=False)
    return large.numpy().reshape(*maps.shape[:-2], height, width)
