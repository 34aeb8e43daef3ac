"""How a folder of the transformers library prepares images: ``preprocessor_config.json``."""

from typing import Any

from backbones.backbone import CLIP_MEAN, CLIP_STD, Preprocessing
from backbones.weights import WeightsFile
from core.errors import InputError

# Pillow's numbers of its filters.
INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}
HALF = (0.5, 0.5, 0.5)


def preprocessing_of(
    weights: WeightsFile, kind: str, size: int
) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """What the folder says of preprocessing, and what had to be assumed, a sentence each.

    Args:
        kind: clip or siglip, whose image processors have other defaults. size: pixels of a side
            that the image encoder reads.

    Returns:
        None in place of CLIP's preprocessing where the folder says nothing.

    Raises:
        InputError: a setting that is not supported.
    """
    file, given = _processor(weights)
    if not given:
        note = f"{weights.path} has no preprocessor_config.json; the preprocessing of "
        if kind == "clip":
            return None, (note + "OpenAI's CLIP is assumed, unless its mean is stated",)
        return Preprocessing(size, HALF, HALF, "bicubic", "squash"), (note + "SigLIP is assumed",)
    where = weights.path / file
    default_mean, default_std = (CLIP_MEAN, CLIP_STD) if kind == "clip" else (HALF, HALF)
    code = given.get("resample", 3)
    if code not in INTERPOLATION:
        raise InputError(
            f"{where}: resample {code!r} is not supported; {', '.join(map(str, INTERPOLATION))} are"
        )
    factor = given.get("rescale_factor", 1 / 255)
    if not given.get("do_rescale", True) or abs(factor * 255 - 1) > 1e-4:
        raise InputError(f"{where}: rescale_factor {factor} is not supported; 1/255 is")
    # One old file of SigLIP's spells them without "image_".
    mean = given.get("image_mean") or given.get("mean") or default_mean
    std = given.get("image_std") or given.get("std") or default_std
    if not given.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    resized, mode = _resized(given, kind, size, where)
    notes: tuple[str, ...] = ()
    if resized != size:
        notes = (
            f"{where} resizes images to {resized} pixels and crops the centre of {size}; here the "
            f"shorter side is resized to {size}",
        )
    return Preprocessing(size, tuple(mean), tuple(std), INTERPOLATION[code], mode), notes


def _processor(weights: WeightsFile) -> tuple[str, dict[str, Any]]:
    """The file and its settings; transformers 5 has them inside of ``processor_config.json``."""
    inner = weights.settings.get("processor_config.json", {}).get("image_processor", {})
    name = "preprocessor_config.json"
    return ("processor_config.json", inner) if inner else (name, weights.settings.get(name, {}))


def _resized(given: dict[str, Any], kind: str, size: int, where: object) -> tuple[int, str]:
    """Pixels to resize to, and the resize mode; a number is the shorter side for CLIP alone."""
    wanted = given.get("size", size)
    if isinstance(wanted, int) and kind == "clip":
        wanted = {"shortest_edge": wanted}
    elif isinstance(wanted, int):
        wanted = {"height": wanted, "width": wanted}
    if isinstance(wanted, dict) and set(wanted) == {"shortest_edge"}:
        return wanted["shortest_edge"], "shortest"
    if isinstance(wanted, dict) and wanted.get("height") == wanted.get("width") == size:
        return size, "squash"
    raise InputError(
        f"{where}: size {wanted!r} is not supported beside an image encoder of {size} pixels"
    )
