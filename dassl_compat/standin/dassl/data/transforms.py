"""From an image to the tensor that a network reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from core.errors import InputError

if TYPE_CHECKING:  # torchvision takes seconds to import, and only a transform needs it
    from torchvision.transforms import Compose, InterpolationMode, Normalize

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")

AVAI_CHOICES = ("random_crop", "random_resized_crop", "random_flip", "colorjitter", "normalize")


def __getattr__(name: str) -> Any:
    """``INTERPOLATION_MODES`` of Dassl: name -> torchvision's mode."""
    if name != "INTERPOLATION_MODES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from torchvision.transforms import InterpolationMode

    return {mode: InterpolationMode(mode) for mode in INTERPOLATIONS}


def build_transform(cfg: Any, is_train: bool = True, choices: Sequence[str] | None = None) -> Any:
    """The transform of INPUT.TRANSFORMS, or of ``choices``; None with INPUT.NO_TRANSFORM.

    In training the image is resized to INPUT.SIZE unless a random crop does that. In testing the
    smaller edge is resized, the centre is cut out, and only the normalization applies.

    Raises:
        InputError: for an unknown transform.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    from torchvision.transforms import Compose, ToTensor

    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        if choice not in AVAI_CHOICES:
            raise InputError(
                f"INPUT.TRANSFORMS names {choice!r}; the stand-in for Dassl has "
                f"{', '.join(AVAI_CHOICES)}"
            )
    print(f"Building transform_{'train' if is_train else 'test'}")
    steps = _training_steps(cfg, choices) if is_train else _testing_steps(cfg)
    steps.append(("to torch tensor of range [0, 1]", ToTensor()))
    if "normalize" in choices:
        mean, std = cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD
        steps.append((f"normalization (mean={mean}, std={std})", _normalize(cfg)))
    for shown, _ in steps:
        print(f"+ {shown}")
    return Compose([step for _, step in steps])


def plain_transform(cfg: Any) -> Compose:
    """Resize, to a tensor, normalize: an image without augmentation."""
    from torchvision.transforms import Compose, Resize, ToTensor

    return Compose([Resize(cfg.INPUT.SIZE, _mode(cfg)), ToTensor(), _normalize(cfg)])


def _mode(cfg: Any) -> InterpolationMode:
    from torchvision.transforms import InterpolationMode

    assert cfg.INPUT.INTERPOLATION in INTERPOLATIONS
    return InterpolationMode(cfg.INPUT.INTERPOLATION)


def _normalize(cfg: Any) -> Normalize:
    from torchvision.transforms import Normalize

    return Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)


def _training_steps(cfg: Any, choices: Sequence[str]) -> list[tuple[str, Callable]]:
    """Pairs of what is printed and what is done, in the order in which they apply."""
    from torchvision.transforms import (
        ColorJitter,
        RandomCrop,
        RandomHorizontalFlip,
        RandomResizedCrop,
        Resize,
    )

    given, mode = cfg.INPUT, _mode(cfg)
    steps: list[tuple[str, Callable]] = []
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        steps.append((f"resize to {given.SIZE[0]}x{given.SIZE[1]}", Resize(given.SIZE, mode)))
    if "random_crop" in choices:
        padding = given.CROP_PADDING
        crop = RandomCrop(given.SIZE, padding=padding)
        steps.append((f"random crop (padding = {padding})", crop))
    if "random_resized_crop" in choices:
        scale = given.RRCROP_SCALE
        shown = f"random resized crop (size={given.SIZE}, scale={scale})"
        steps.append((shown, RandomResizedCrop(given.SIZE, scale=scale, interpolation=mode)))
    if "random_flip" in choices:
        steps.append(("random flip", RandomHorizontalFlip()))
    if "colorjitter" in choices:
        jitter = given.COLORJITTER_B, given.COLORJITTER_C, given.COLORJITTER_S, given.COLORJITTER_H
        shown = "color jitter (brightness={}, contrast={}, saturation={}, hue={})".format(*jitter)
        steps.append((shown, ColorJitter(*jitter)))
    return steps


def _testing_steps(cfg: Any) -> list[tuple[str, Callable]]:
    from torchvision.transforms import CenterCrop, Resize

    height, width = cfg.INPUT.SIZE
    edge = max(height, width)
    return [
        (f"resize the smaller edge to {edge}", Resize(edge, _mode(cfg))),
        (f"{height}x{width} center crop", CenterCrop(cfg.INPUT.SIZE)),
    ]
