"""What the drawn lesions and chest films share: the grid, noise, soft edges, lines.

Arrays are [64, 64] float32, or [64, 64, 3] for colour with values 0 to 255.
"""

import functools
from collections.abc import Sequence

import numpy as np
from numpy import ndarray as Array
from numpy.random import Generator

Colour = Sequence[float] | Array
SIZE = 64
_CENTRES = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
GRID_X, GRID_Y = np.meshgrid(_CENTRES, _CENTRES)  # -1 to 1, rightwards and downwards
PIXEL = 2 / SIZE


@functools.cache
def _interpolation(cells: int) -> Array:
    """[64, cells + 1] weights that stretch cells + 1 knots smoothly over a side."""
    at = (np.arange(SIZE) + 0.5) / SIZE * cells
    left = np.minimum(at.astype(int), cells - 1)
    step = at - left
    step = step * step * (3 - 2 * step)
    weights = np.zeros((SIZE, cells + 1), np.float32)
    weights[np.arange(SIZE), left] = 1 - step
    weights[np.arange(SIZE), left + 1] = step
    return weights


def smooth_noise(rng: Generator, cells: int) -> Array:
    """Noise of deviation about 0.5, smooth over 64 / ``cells`` pixels."""
    weights = _interpolation(cells)
    return weights @ rng.standard_normal((cells + 1, cells + 1), dtype=np.float32) @ weights.T


def soft(distance: Array, width: float) -> Array:
    """1 where ``distance`` is negative, 0 where positive, over about ``width`` either side."""
    return 0.5 - 0.5 * np.tanh(distance / width)


def blend(image: Array, colour: Colour, weight: Array) -> None:
    """Move ``image`` [64, 64, 3] towards ``colour`` by ``weight`` [64, 64], in place."""
    weight = weight[..., None]
    image += weight * (np.asarray(colour, np.float32) - image)


def line_distance(x: Array, y: Array, points: Array) -> Array:
    """Distance to the polyline through ``points`` [n, 2]."""
    start, end = points[:-1], points[1:]
    along = end - start  # [n - 1, 2]
    dx = x[..., None] - start[:, 0]  # [64, 64, n - 1]
    dy = y[..., None] - start[:, 1]
    t = (dx * along[:, 0] + dy * along[:, 1]) / (along**2).sum(1)
    t = np.clip(t, 0, 1)
    squared = (dx - t * along[:, 0]) ** 2 + (dy - t * along[:, 1]) ** 2
    return np.sqrt(squared.min(-1))


def to_uint8(image: Array) -> Array:
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)
