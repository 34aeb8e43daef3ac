"""Heat maps as images: the image in grey with the heat over it."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

# Dark violet to light yellow: its lightness rises steadily, so colour-blind readers see the order,
# and it stands out from grey on light and on dark pages.
COLOURS = colormaps["inferno"]
COVER = 0.75  # of the image, where the heat is greatest
FAINT, BRIGHT = 0.25, 0.95  # of the colour map; its ends are lost in black and white


def overlay(image: Image.Image, heat: np.ndarray, limit: float | None = None) -> Image.Image:
    """The image in grey with its heat over it; a hotter place is lighter and covers more.

    Args:
        image: RGB. heat: [H, W] of its size; what is below zero or NaN is not drawn.
        limit: the heat that is drawn the strongest; None is the map's own greatest.
    """
    strength = _strength(heat, limit)
    grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None]
    cover = COVER * np.sqrt(strength)[..., None]
    mixed = (1 - cover) * grey + cover * 255 * _colours(strength)
    return Image.fromarray((mixed + 0.5).astype(np.uint8))


def layer(heat: np.ndarray, limit: float | None = None) -> Image.Image:
    """The heat alone, RGBA, to be laid over an image: the hotter, the lighter and the less clear.

    Arguments as for ``overlay``.
    """
    strength = _strength(heat, limit)
    colours = np.concatenate([_colours(strength), COVER * np.sqrt(strength)[..., None]], axis=-1)
    return Image.fromarray((255 * colours + 0.5).astype(np.uint8), "RGBA")


def legend(width: int = 160, height: int = 12) -> Image.Image:
    """A bar of the colours, from no heat on the left to the most on the right, on mid grey."""
    grey = Image.new("RGB", (width, height), (128, 128, 128))
    return overlay(grey, np.broadcast_to(np.linspace(0, 1, width), (height, width)), 1.0)


def data_uri(image: Image.Image) -> str:
    """The image as PNG in a ``data:`` address, for a page that needs no other file."""
    with io.BytesIO() as file:
        image.save(file, format="PNG")
        return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _strength(heat: np.ndarray, limit: float | None) -> np.ndarray:
    """[H, W] from 0 to 1."""
    heat = np.nan_to_num(np.clip(heat, 0, None))
    limit = heat.max() if limit is None else limit
    return np.clip(heat / limit, 0, 1) if limit > 0 else np.zeros_like(heat)


def _colours(strength: np.ndarray) -> np.ndarray:
    """[H, W, 3] from 0 to 1."""
    return COLOURS(FAINT + (BRIGHT - FAINT) * strength)[..., :3]
