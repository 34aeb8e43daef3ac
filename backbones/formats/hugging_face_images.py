"""How a folder of the transformers library prepares images: ``preprocessor_config.json``."""

from pydantic import AliasChoices, BaseModel, Field, PositiveFloat, ValidationError

from backbones.backbone import CLIP_MEAN, CLIP_STD, Preprocessing
from backbones.weights import WeightsFile
from core.errors import InputError

# Pillow's numbers of its filters.
INTERPOLATION = {0: "nearest", 2: "bilinear", 3: "bicubic"}
HALF = (0.5, 0.5, 0.5)


class ImageSettings(BaseModel):
    """What is read of an image processor's settings."""

    resample: int = 3
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    # One old file of SigLIP's spells them without "image_".
    mean: tuple[float, float, float] | None = Field(
        None, validation_alias=AliasChoices("image_mean", "mean")
    )
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(
        None, validation_alias=AliasChoices("image_std", "std")
    )
    size: int | dict[str, int | None] | None = None


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
    file, given = image_settings(weights)
    if given is None:
        note = f"{weights.path} has no {file}; the preprocessing of "
        if kind == "clip":
            return None, (note + "OpenAI's CLIP is assumed, unless its mean is stated",)
        return Preprocessing(size, HALF, HALF, "bicubic", "squash"), (note + "SigLIP is assumed",)
    where = weights.path / file
    _check_supported(given, where)
    mean = given.mean or (CLIP_MEAN if kind == "clip" else HALF)
    std = given.std or (CLIP_STD if kind == "clip" else HALF)
    if not given.do_normalize:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    resized, mode = _resized(given, kind, size, where)
    notes: tuple[str, ...] = ()
    if resized != size:
        notes = (
            f"{where} resizes images to {resized} pixels and crops the centre of {size}; here the "
            f"shorter side is resized to {size}",
        )
    return Preprocessing(size, mean, std, INTERPOLATION[given.resample], mode), notes


def image_settings(weights: WeightsFile) -> tuple[str, ImageSettings | None]:
    """The file and its settings; transformers 5 has them inside of ``processor_config.json``."""
    file = "preprocessor_config.json"
    given = weights.settings.get(file)
    if inner := weights.settings.get("processor_config.json", {}).get("image_processor"):
        file, given = "processor_config.json", inner
    if given is None:
        return file, None
    try:
        return file, ImageSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{weights.path / file}: {key}: {first['msg'].lower()}") from None


def _check_supported(given: ImageSettings, where: object) -> None:
    if given.resample not in INTERPOLATION:
        known = ", ".join(map(str, INTERPOLATION))
        raise InputError(f"{where}: resample {given.resample} is not supported; {known} are")
    if not given.do_rescale or abs(given.rescale_factor * 255 - 1) > 1e-4:
        raise InputError(
            f"{where}: do_rescale {given.do_rescale} with rescale_factor {given.rescale_factor} is "
            "not supported; true and 1/255 are"
        )


def _resized(given: ImageSettings, kind: str, size: int, where: object) -> tuple[int, str]:
    """Pixels to resize to, and the resize mode; a number is the shorter side for CLIP alone."""
    wanted = given.size
    if wanted is None or isinstance(wanted, int):
        n = size if wanted is None else wanted
        wanted = {"shortest_edge": n} if kind == "clip" else {"height": n, "width": n}
    wanted = {name: pixels for name, pixels in wanted.items() if pixels is not None}
    if set(wanted) == {"shortest_edge"}:
        return int(wanted["shortest_edge"] or size), "shortest"
    if wanted == {"height": size, "width": size}:
        return size, "squash"
    raise InputError(
        f"{where}: size {wanted!r} is not supported beside an image encoder of {size} pixels"
    )
