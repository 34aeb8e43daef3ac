"""Sixteen training images of a class on one sheet: what a vision model is shown."""

import io
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from core.errors import InputError
from core.files import fingerprint
from datasets.arrays import address_of, digest_at
from datasets.dicom import DEFAULT, Rendering
from datasets.pictures import read_picture

TILES = 16
CELL = 224  # pixels; a sheet of 4 x 4 is 916 wide
GAP = 4
MAX_BYTES = 1 << 20
FEW = 3  # sheets that a class of fewer images may have too, with some images on several


class SourceImage(Protocol):
    """An image file: where it is, and the name that orders it among its class's."""

    @property
    def impath(self) -> str: ...

    @property
    def id(self) -> str: ...


def draw(
    images: Sequence[SourceImage], montages: int, tiles: int, seed: int, classname: str
) -> list[list[SourceImage]]:
    """Choose the images of each sheet, by seed.

    No image comes twice on a sheet, nor on two sheets before all have been used.

    Args:
        images: all training images of the class, in any order; sorted here by their name.
        montages: how many sheets. tiles: images on one; fewer where the class has fewer.

    Returns:
        ``montages`` lists of images.

    Raises:
        InputError: the class has no images, or fewer than sheets were asked for.
    """
    pool = sorted(images, key=lambda image: image.id)
    if not pool:
        raise InputError(f"class {classname!r} has no training images to show")
    if montages > max(len(pool), FEW):
        raise InputError(
            f"--montages is {montages}; class {classname!r} has {len(pool)} training images: give "
            f"at most {max(len(pool), FEW)}"
        )
    # A class keeps its images when others are added or renamed.
    generator = random.Random(f"{seed}/{classname}")
    tiles = min(tiles, len(pool))
    order: list[SourceImage] = []
    sheets = []
    for _ in range(montages):
        if len(order) < tiles:
            left = {image.id for image in order}
            refill = [image for image in pool if image.id not in left]
            generator.shuffle(refill)
            order += refill
        sheets.append(order[:tiles])
        order = order[tiles:]
    return sheets


def sheet(images: Sequence[SourceImage], rendering: Rendering = DEFAULT) -> bytes:
    """One sheet as JPEG bytes: whole images, white between them, no metadata, at most 1 MiB.

    Args:
        rendering: what of DICOM files is shown.
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    size = (columns * (CELL + GAP) + GAP, rows * (CELL + GAP) + GAP)
    # Pixels are pasted onto a new image, so EXIF and other metadata of the files stay behind.
    whole = Image.new("RGB", size, "white")
    for number, source in enumerate(images):
        image = read_picture(source.impath, rendering=rendering)
        scale = CELL / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        row, column = divmod(number, columns)
        left = GAP + column * (CELL + GAP) + (CELL - width) // 2
        top = GAP + row * (CELL + GAP) + (CELL - height) // 2
        whole.paste(image, (left, top))
    return jpeg(whole)


def jpeg(image: Image.Image) -> bytes:
    """The image as JPEG bytes without metadata, at most 1 MiB where any quality allows it."""
    bare = Image.new("RGB", image.size)
    bare.paste(image)  # pixels alone: EXIF and other notes stay behind
    for quality in (90, 75, 60, 40):
        buffer = io.BytesIO()
        bare.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def image_fingerprint(image: SourceImage, rendering: Rendering = DEFAULT) -> str:
    """Fingerprint of the image's file, and of what is shown of it if that is not the file's own.

    Of an image that lies in an array: of its pixels.
    """
    if address := address_of(image.impath):
        return fingerprint(digest_at(address))
    try:
        content = Path(image.impath).read_bytes()
    except OSError as error:
        raise InputError(f"{image.impath}: cannot be read ({error.strerror})") from None
    if not rendering.is_default:
        content += repr(rendering.key).encode()
    return fingerprint(content)
