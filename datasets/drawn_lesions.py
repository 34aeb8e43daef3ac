"""Dermoscopy-like images drawn from attributes: the ABCD rule made visible."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy import ndarray as Array
from numpy.random import Generator

from .drawing import (
    GRID_X,
    GRID_Y,
    PIXEL,
    SIZE,
    Colour,
    blend,
    line_distance,
    smooth_noise,
    soft,
    to_uint8,
)

LESION_COLOURS = {"brown": (122, 70, 38), "tan": (186, 134, 82), "black": (66, 54, 52)}
SECOND_COLOURS = {
    "brown": ((44, 30, 30), (178, 62, 58), (214, 170, 118), (206, 196, 196)),
    "tan": ((44, 30, 30), (178, 62, 58), (108, 60, 34), (222, 212, 210)),
    "black": ((178, 62, 58), (204, 154, 98), (206, 196, 196), (128, 74, 40)),
}


BORDER = 3 * PIXEL  # how far the place of the border reaches to either side


def draw_lesion(attributes: Mapping[str, str], rng: Generator) -> Array:
    """A dermoscopy-like image [64, 64, 3] uint8 of a lesion with these attributes."""
    return _draw(attributes, rng)[0]


def lesion_places(attributes: Mapping[str, str], rng: Generator) -> dict[str, Array]:
    """{attribute: [64, 64] from 0 to 1, where it shows} of what ``draw_lesion`` draws.

    Symmetry and the main colour have no place of their own, nor has what is not there.
    """
    return _draw(attributes, rng)[1]


def _draw(attributes: Mapping[str, str], rng: Generator) -> tuple[Array, dict[str, Array]]:
    """The image, and the places of its attributes."""
    has = attributes.get
    symmetric = has("symmetry") == "symmetric"
    # Apart, so that another attribute leaves the rest of the image as it is.
    nuisance, shape, inner = rng.spawn(3)
    image = _skin(nuisance)

    # The lesion's own frame: centre, rotation and scale are nuisance.
    angle = nuisance.uniform(0, 2 * np.pi)
    centre = nuisance.uniform(-0.14, 0.14, 2)
    size = nuisance.uniform(0.42, 0.62)
    x, y = (GRID_X - centre[0]) / size, (GRID_Y - centre[1]) / size
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    theta, rho = np.arctan2(v, u), np.hypot(u, v)
    radius = _outline(theta, symmetric, has("border") == "jagged", shape)
    outside = rho - radius  # in lesion radii; negative inside
    edge = shape.uniform(0.2, 0.3) if has("border") == "blurred" else 0.7 * PIXEL / size
    inside = soft(outside, edge)
    places = {"border": (np.abs(outside) < max(edge, BORDER / size)).astype(np.float32)}

    if has("redness") == "red":
        spread = shape.uniform(0.32, 0.5)
        halo = np.exp(-((np.maximum(outside, 0) / spread) ** 2))
        blend(image, (224, 70, 70), halo * shape.uniform(0.45, 0.62))
        places["redness"] = halo * (1 - inside)

    body, structures = _body(attributes, u, v, size, inner)
    image += inside[..., None] * (body - image)
    places |= {name: inside * weight for name, weight in structures.items()}

    return _dermoscope(image, nuisance), places


def _body(
    attributes: Mapping[str, str], u: Array, v: Array, size: float, rng: Generator
) -> tuple[Array, dict[str, Array]]:
    """The lesion's colours and structures [64, 64, 3], in its own frame (u, v), and their places.

    A consistent colour and a network fill the lesion.
    """
    has = attributes.get
    places = {"colours": np.ones_like(u)}
    symmetric = has("symmetry") == "symmetric"
    # Colour and structures are mirrored in a symmetric lesion: folded coordinates draw them twice.
    fold_u, fold_v = (np.abs(u), np.abs(v)) if symmetric else (u, v)
    main = attributes["colour"]
    body = np.empty((SIZE, SIZE, 3), np.float32)
    body[:] = LESION_COLOURS[main] + rng.normal(0, 5, 3)
    shade = 4.0 * smooth_noise(rng, 12)
    if not symmetric:  # one side darker than the other
        shade -= rng.uniform(6, 14) * u
    body += shade[..., None]
    if has("colours") == "several":
        places["colours"] = _patches(body, fold_u, fold_v, symmetric, SECOND_COLOURS[main], rng)
    if has("network") == "network":
        places["network"] = np.ones_like(u)
        body *= 1 - rng.uniform(0.42, 0.55) * _mesh(u, v, size, rng)[..., None]
    if has("veil") == "veil":
        where = (0.0, 0.0) if symmetric else rng.uniform(-0.2, 0.2, 2)
        reach = np.hypot(u - where[0], v - where[1]) - rng.uniform(0.45, 0.6)
        reach += 0.05 * smooth_noise(rng, 6)
        places["veil"] = soft(reach, 0.14)
        blend(body, (140, 162, 212), places["veil"] * rng.uniform(0.78, 0.9))
    if has("dots") == "dots":
        places["dots"] = _dots(fold_u, fold_v, symmetric, size, rng)
        blend(body, (14, 8, 10), 0.95 * places["dots"])
    return body, places


def _skin(rng: Generator) -> Array:
    light, dark = np.array((240, 206, 188)), np.array((206, 160, 128))
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = light + rng.uniform(0, 1) * (dark - light)
    slope = rng.normal(0, 5, 2)
    image += (slope[0] * GRID_X + slope[1] * GRID_Y + 5 * smooth_noise(rng, 8))[..., None]
    return image


def _outline(theta: Array, symmetric: bool, jagged: bool, rng: Generator) -> Array:
    """The radius by angle, about 1; with both mirror axes where ``symmetric``."""
    radius = (
        1
        + rng.uniform(0.0, 0.12) * np.cos(2 * theta)
        + rng.uniform(-0.03, 0.03) * np.cos(4 * theta)
    )
    if not symmetric:
        phase = rng.uniform(0, 2 * np.pi, 3)
        radius += rng.uniform(0.18, 0.3) * np.cos(theta + phase[0])
        radius += rng.uniform(0.12, 0.22) * np.cos(2 * theta + phase[1])
        radius += rng.uniform(0.15, 0.23) * np.cos(3 * theta + phase[2])
    if jagged:
        teeth = rng.choice((8, 10, 12))
        start = 0.0 if symmetric else rng.uniform(0, 2 * np.pi)
        wave = np.arcsin(np.cos(teeth * theta + start)) * (2 / np.pi)  # a zigzag
        depth = rng.uniform(0.14, 0.2)
        uneven = np.cos((2 if symmetric else 3) * theta + 2 * start)
        radius += depth * (1 + 0.4 * uneven) * wave
    return radius.astype(np.float32)


def _patches(
    body: Array, u: Array, v: Array, symmetric: bool, colours: Sequence[Colour], rng: Generator
) -> Array:
    """Paint two or three patches of other colours, in place; returns where they are."""
    place = np.zeros_like(u)
    first = rng.uniform(0, 2 * np.pi)
    order = rng.permutation(len(colours))[: rng.integers(2, 4)]
    for i, colour in enumerate(order):
        if symmetric:  # folded: a patch in one quarter appears in all four
            around, out = rng.uniform(0.0, np.pi / 2), (0.0, 0.72, 0.5)[i]
            reach = (0.42, 0.3, 0.26)[i]
        else:
            around, out = first + i * 2.1 + rng.uniform(-0.3, 0.3), rng.uniform(0.4, 0.6)
            reach = rng.uniform(0.34, 0.46)
        distance = np.hypot(u - out * np.cos(around), v - out * np.sin(around)) - reach
        patch = soft(distance, 0.07)
        blend(body, colours[colour], 0.92 * patch)
        place = np.maximum(place, patch)
    return place


def _mesh(u: Array, v: Array, size: float, rng: Generator) -> Array:
    """Dark lines around light holes, like the reticular pigment network."""
    period = rng.uniform(5.2, 6.4) * PIXEL / size
    k = 2 * np.pi / (period * 0.866)
    turn = rng.uniform(0, np.pi)
    waves: Array | float = 0.0
    for third in range(3):
        a = turn + third * np.pi / 3
        waves = waves + np.cos(k * (np.cos(a) * u + np.sin(a) * v))
    return soft(np.asarray(waves) + 0.45, 0.5)


def _dots(u: Array, v: Array, symmetric: bool, size: float, rng: Generator) -> Array:
    n = int(rng.integers(3, 5)) if symmetric else int(rng.integers(9, 15))
    out = 0.8 * np.sqrt(rng.uniform(0.03, 1, n)).astype(np.float32)
    around = rng.uniform(0, np.pi / 2 if symmetric else 2 * np.pi, n).astype(np.float32)
    squared = (u[..., None] - out * np.cos(around)) ** 2
    squared += (v[..., None] - out * np.sin(around)) ** 2
    radius = rng.uniform(1.2, 1.7) * PIXEL / size
    return soft(np.sqrt(squared.min(-1)) - radius, 0.4 * PIXEL / size)


def _dermoscope(image: Array, rng: Generator) -> Array:
    """Hair, ruler, dark corners, exposure, noise."""
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 4)):
            start, end = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
            direction = (end - start) / max(np.hypot(*(end - start)), 1e-3)
            start, end = start - 0.6 * direction, end + 0.6 * direction
            bend = rng.uniform(-0.25, 0.25) * np.array((-direction[1], direction[0]))
            points = np.stack((start, (start + end) / 2 + bend, end)).astype(np.float32)
            hair = soft(line_distance(GRID_X, GRID_Y, points) - 0.35 * PIXEL, 0.5 * PIXEL)
            blend(image, (48, 34, 28), 0.75 * hair)
    if rng.random() < 0.12:
        ticks = (np.abs((np.arange(SIZE) + rng.integers(0, 8)) % 8 - 4) < 1) * 1.0
        length = 3 + (np.arange(SIZE) // 8 % 5 == 0) * 3
        ruler = (ticks * (np.arange(SIZE)[:, None] < length)).astype(np.float32)
        ruler = np.rot90(ruler, int(rng.integers(0, 4)))
        blend(image, (50, 50, 60), 0.8 * ruler)
    if rng.random() < 0.2:
        reach = rng.uniform(1.12, 1.3)
        blend(image, (16, 12, 12), soft(reach - np.hypot(GRID_X, GRID_Y), 0.05))
    image *= rng.uniform(0.9, 1.08)
    image += rng.normal(0, 3, 3)
    image += rng.uniform(1.5, 5) * rng.standard_normal(image.shape, dtype=np.float32)
    return to_uint8(image)
