"""From a picture to the tensor that a network reads."""

import random

import numpy as np
import torch
from torchvision.transforms import (
    CenterCrop,
    ColorJitter,
    Compose,
    GaussianBlur,
    InterpolationMode,
    Normalize,
    RandomApply,
    RandomCrop,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToTensor,
)

INTERPOLATION_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}

AVAI_CHOICES = [
    "random_flip",
    "random_resized_crop",
    "normalize",
    "instance_norm",
    "random_crop",
    "random_translation",
    "center_crop",
    "cutout",
    "gaussian_noise",
    "colorjitter",
    "randomgrayscale",
    "gaussian_blur",
]


class Random2DTranslation:
    """With chance ``p``: enlarge by an eighth and cut ``height`` x ``width`` out anywhere."""

    def __init__(self, height, width, p=0.5, interpolation=InterpolationMode.BILINEAR):
        self.height = height
        self.width = width
        self.p = p
        self.interpolation = interpolation

    def __call__(self, img):
        if random.uniform(0, 1) > self.p:
            return Resize((self.height, self.width), self.interpolation)(img)
        larger = round(self.height * 1.125), round(self.width * 1.125)
        left = round(random.uniform(0, larger[1] - self.width))
        top = round(random.uniform(0, larger[0] - self.height))
        enlarged = Resize(larger, self.interpolation)(img)
        return enlarged.crop((left, top, left + self.width, top + self.height))


class InstanceNormalization:
    """Each channel of each picture to mean zero and deviation one."""

    def __init__(self, eps=1e-8):
        self.eps = eps

    def __call__(self, img):
        flat = img.reshape(img.shape[0], -1)
        mean, std = flat.mean(dim=1), flat.std(dim=1)
        return (img - mean[:, None, None]) / (std[:, None, None] + self.eps)


class Cutout:
    """Zero ``n_holes`` squares of ``length`` pixels around random centres."""

    def __init__(self, n_holes=1, length=16):
        self.n_holes = n_holes
        self.length = length

    def __call__(self, img):
        height, width = img.shape[1:]
        img = img.clone()
        half = self.length // 2
        for _ in range(self.n_holes):
            row, column = np.random.randint(height), np.random.randint(width)
            rows = slice(max(row - half, 0), row + half)
            columns = slice(max(column - half, 0), column + half)
            img[:, rows, columns] = 0
        return img


class GaussianNoise:
    """With chance ``p``: add noise of mean ``mean`` and deviation ``std``."""

    def __init__(self, mean=0, std=0.15, p=0.5):
        self.mean = mean
        self.std = std
        self.p = p

    def __call__(self, img):
        if random.uniform(0, 1) > self.p:
            return img
        return img + torch.randn_like(img) * self.std + self.mean


def build_transform(cfg, is_train=True, choices=None):
    """The transform of INPUT.TRANSFORMS, or of ``choices``; None with INPUT.NO_TRANSFORM.

    In training the picture is resized to INPUT.SIZE unless a random crop does that. In testing the
    smaller edge is resized and the centre cut out, and only the normalizations apply.
    """
    if cfg.INPUT.NO_TRANSFORM:
        print("Note: no transform is applied!")
        return None
    choices = cfg.INPUT.TRANSFORMS if choices is None else choices
    for choice in choices:
        if choice not in AVAI_CHOICES:
            raise ValueError(f"INPUT.TRANSFORMS may have {AVAI_CHOICES}, not {choice!r}")
    print(f"Building transform_{'train' if is_train else 'test'}")
    steps = _training_steps(cfg, choices) if is_train else _testing_steps(cfg, choices)
    for told, _ in steps:
        print(f"+ {told}")
    return Compose([step for _, step in steps])


def plain_transform(cfg):
    """Resize, to a tensor, normalize: a picture without augmentation."""
    return Compose([Resize(cfg.INPUT.SIZE, _mode(cfg)), ToTensor(), _normalize(cfg)])


def _mode(cfg):
    return INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]


def _normalize(cfg):
    return Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD)


_TO_TENSOR = ("to torch tensor of range [0, 1]", ToTensor())


def _training_steps(cfg, choices):
    """Pairs of what to tell and what to do, in the order in which they apply."""
    given, mode = cfg.INPUT, _mode(cfg)
    height, width = given.SIZE
    jitter = given.COLORJITTER_B, given.COLORJITTER_C, given.COLORJITTER_S, given.COLORJITTER_H
    steps = []
    if "random_crop" not in choices and "random_resized_crop" not in choices:
        steps.append((f"resize to {height}x{width}", Resize(given.SIZE, mode)))
    if "random_translation" in choices:
        steps.append(("random translation", Random2DTranslation(height, width)))
    if "random_crop" in choices:
        padding = given.CROP_PADDING
        steps.append(
            (f"random crop (padding = {padding})", RandomCrop(given.SIZE, padding=padding))
        )
    if "random_resized_crop" in choices:
        scale = given.RRCROP_SCALE
        told = f"random resized crop (size={given.SIZE}, scale={scale})"
        steps.append((told, RandomResizedCrop(given.SIZE, scale=scale, interpolation=mode)))
    if "random_flip" in choices:
        steps.append(("random flip", RandomHorizontalFlip()))
    if "colorjitter" in choices:
        names = ("brightness", "contrast", "saturation", "hue")
        told = ", ".join(f"{name}={by}" for name, by in zip(names, jitter, strict=True))
        steps.append((f"color jitter ({told})", ColorJitter(*jitter)))
    if "randomgrayscale" in choices:
        steps.append(("random gray scale", RandomGrayscale(p=given.RGS_P)))
    if "gaussian_blur" in choices:
        blur = RandomApply([GaussianBlur(given.GB_K)], p=given.GB_P)
        steps.append((f"gaussian blur (kernel={given.GB_K})", blur))
    steps.append(_TO_TENSOR)
    if "cutout" in choices:
        told = f"cutout (n_holes={given.CUTOUT_N}, length={given.CUTOUT_LEN})"
        steps.append((told, Cutout(given.CUTOUT_N, given.CUTOUT_LEN)))
    if "normalize" in choices:
        steps.append(_normalization_step(cfg))
    if "gaussian_noise" in choices:
        told = f"gaussian noise (mean={given.GN_MEAN}, std={given.GN_STD})"
        steps.append((told, GaussianNoise(given.GN_MEAN, given.GN_STD)))
    if "instance_norm" in choices:
        steps.append(("instance normalization", InstanceNormalization()))
    return steps


def _testing_steps(cfg, choices):
    height, width = cfg.INPUT.SIZE
    steps = [
        (
            f"resize the smaller edge to {max(height, width)}",
            Resize(max(height, width), _mode(cfg)),
        ),
        (f"{height}x{width} center crop", CenterCrop(cfg.INPUT.SIZE)),
        _TO_TENSOR,
    ]
    if "normalize" in choices:
        steps.append(_normalization_step(cfg))
    if "instance_norm" in choices:
        steps.append(("instance normalization", InstanceNormalization()))
    return steps


def _normalization_step(cfg):
    told = f"normalization (mean={cfg.INPUT.PIXEL_MEAN}, std={cfg.INPUT.PIXEL_STD})"
    return told, _normalize(cfg)
