"""Sixteen training pictures of a class on one sheet: what a vision model is shown."""

import io
import math
import random
from pathlib import Path

from PIL import Image

from core.errors import InputError
from core.files import fingerprint

CELL = 224  # pixels; a sheet of 4 x 4 is 916 wide
GAP = 4
MAX_BYTES = 1 << 20


def draw(pictures, montages, tiles, seed, classname):
    """Choose the pictures of each sheet, by seed.

    No picture comes twice on a sheet, nor on two sheets before all have been used.

    Args:
        pictures: all training pictures of the class, in any order; sorted here by their name.
        montages: how many sheets. tiles: pictures on one; fewer where the class has fewer.

    Returns:
        ``montages`` lists of pictures.
    """
    pool = sorted(pictures, key=lambda picture: picture.id)
    if not pool:
        raise InputError(f"class {classname!r} has no training pictures to show")
    # A class keeps its pictures when others are added or renamed.
    generator = random.Random(f"{seed}/{classname}")
    tiles = min(tiles, len(pool))
    order, sheets = [], []
    for _ in range(montages):
        if len(order) < tiles:
            left = {picture.id for picture in order}
            refill = [picture for picture in pool if picture.id not in left]
            generator.shuffle(refill)
            order += refill
        sheets.append(order[:tiles])
        order = order[tiles:]
    return sheets


def sheet(pictures):
    """One sheet as JPEG bytes: whole pictures, white between them, no metadata, at most 1 MiB.

    Args:
        pictures: objects with ``impath``.
    """
    from datasets.pictures import read_picture  # imports torch through the dataset package

    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    size = (columns * (CELL + GAP) + GAP, rows * (CELL + GAP) + GAP)
    # Pixels are pasted onto a new picture, so EXIF and other notes of the files stay behind.
    whole = Image.new("RGB", size, "white")
    for number, picture in enumerate(pictures):
        image = read_picture(picture.impath)
        scale = CELL / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        row, column = divmod(number, columns)
        left = GAP + column * (CELL + GAP) + (CELL - width) // 2
        top = GAP + row * (CELL + GAP) + (CELL - height) // 2
        whole.paste(image, (left, top))
    for quality in (90, 75, 60, 40):
        buffer = io.BytesIO()
        whole.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def picture_fingerprint(picture):
    """Fingerprint of the picture's file."""
    try:
        return fingerprint(Path(picture.impath).read_bytes())
    except OSError as error:
        raise InputError(f"{picture.impath}: cannot be read ({error.strerror})") from None
