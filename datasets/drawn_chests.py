"""Chest-film-like images drawn from attributes: radiology's signs made visible."""

from collections.abc import Mapping

import numpy as np
from numpy import ndarray as Array
from numpy.random import Generator

from .drawing import (
    GRID_X,
    GRID_Y,
    PIXEL,
    line_distance,
    smooth_noise,
    soft,
    to_uint8,
)

BORDER = 3 * PIXEL  # how far the place of a border reaches to either side


def draw_chest(attributes: Mapping[str, str], rng: Generator) -> Array:
    """A chest-film-like image [64, 64, 3] uint8, grey, with these attributes."""
    return _draw(attributes, rng)[0]


def chest_places(attributes: Mapping[str, str], rng: Generator) -> dict[str, Array]:
    """{attribute: [64, 64] from 0 to 1, where it shows} of what ``draw_chest`` draws.

    The zone is the opacity's place; an effusion or a cavity that is not there has none.
    """
    return _draw(attributes, rng)[1]


def _draw(attributes: Mapping[str, str], rng: Generator) -> tuple[Array, dict[str, Array]]:
    """The film, and the places of its attributes."""
    has = attributes.get
    nuisance, signs = rng.spawn(2)  # apart, as for the lesions
    # Position, scale and rotation of the whole chest are nuisance.
    angle, scale = nuisance.normal(0, 0.04), nuisance.uniform(0.92, 1.08)
    shift = nuisance.uniform(-0.06, 0.06, 2)
    x = (np.cos(angle) * (GRID_X - shift[0]) + np.sin(angle) * (GRID_Y - shift[1])) / scale
    y = (np.cos(angle) * (GRID_Y - shift[1]) - np.sin(angle) * (GRID_X - shift[0])) / scale
    side = np.abs(x)
    hidden = has("borders") == "hidden"
    blur = signs.uniform(0.13, 0.18)
    edge = blur if hidden else 0.025

    film, lung, middle, borders = _anatomy(x, y, edge, nuisance)
    lungs_only = lung * (1 - middle)
    # Clear lungs and their markings fill the lungs.
    places = {"borders": borders, "markings": lungs_only, "opacity": lungs_only}
    film += lungs_only * _markings(x, y, has("markings") == "increased", signs)
    mirror = nuisance.choice((-1.0, 1.0))
    if has("opacity") == "opaque":
        lines = has("bronchogram") == "lines"
        places |= _consolidate(film, x * mirror, y, lung, attributes["zone"], lines, signs)
    if has("effusion") == "fluid":
        # Never over the opacity.
        fluid_side = -mirror if has("zone") == "lower" else mirror
        places["effusion"] = _fill_base(film, side, y, x * fluid_side > 0.1, signs)
    if has("cavity") == "cavity":
        places["cavity"] = _hollow(film, x * -mirror, y, signs)

    return _film(film.astype(np.float32), nuisance), places


def _anatomy(x: Array, y: Array, edge: float, rng: Generator) -> tuple[Array, Array, Array, Array]:
    """The film of a healthy chest, its lungs, its heart and spine, and the place of the borders.

    Each is [64, 64]. ``edge`` is how soft the borders of heart and diaphragm are; their place is
    where they meet the lungs.
    """
    side = np.abs(x)
    right = x < 0  # the patient's right is on the left
    # Lungs: two upright ovals, cut by the diaphragm's domes and by the heart.
    wide = rng.uniform(0.34, 0.39)
    oval = np.hypot((side - 0.45) / wide, (y + 0.05) / 0.78) - 1
    dome = rng.uniform(0.42, 0.5) + 0.08 * ~right + 0.7 * (side - 0.42) ** 2
    dome = dome.astype(np.float32)
    lung = soft(oval * wide, 0.035) * soft(y - dome, edge)
    heart_size = rng.uniform(0.26, 0.33)
    heart = np.hypot((x - 0.13) / heart_size, (y - 0.28) / (heart_size * 0.95)) - 1
    reach = max(edge, BORDER)
    near = (np.abs(y - dome) < reach) | ((np.abs(heart * heart_size) < reach) & (y < dome))
    borders = (near & (oval * wide < BORDER)).astype(np.float32)
    heart = soft(heart * heart_size, edge)
    column = soft(side - 0.13 - 0.05 * smooth_noise(rng, 4), 0.04)

    film = 0.64 + 0.1 * (y > dome) - 0.35 * soft(1.08 - side - 0.12 * (y + 1), 0.06)
    air = rng.uniform(0.16, 0.24)
    film += lung * (air - film)
    # Ribs and collar bones.
    arcs = y + 0.55 * (side - 0.35) ** 2 - 0.28 * side + rng.uniform(0, 0.2)
    ribs = soft(np.abs((arcs * 5) % 1 - 0.5) - 0.13, 0.12)
    film += 0.075 * ribs * (oval < 0.1)
    collar = np.abs(y + 0.74 + 0.18 * (side - 0.3)) - 0.025
    film += 0.1 * soft(collar, 0.02) * (side > 0.1)
    middle = np.maximum(heart, column)
    film += middle * (0.82 - film)
    return film, lung, middle, borders


def _fill_base(film: Array, side: Array, y: Array, where: Array, rng: Generator) -> Array:
    """Fluid, in place: it settles at one base, its top rising along the chest wall.

    Returns where it is.
    """
    level = rng.uniform(0.24, 0.36) - 0.75 * np.maximum(side - 0.3, 0) ** 1.5
    fluid = soft(level - y, 0.03) * where * soft(side - 0.84, 0.05)
    film += fluid * (0.84 - film)
    return fluid


def _hollow(film: Array, x: Array, y: Array, rng: Generator) -> Array:
    """A cavity, in place: black, with a white wall; returns where it is, with its wall."""
    at = (0.45 + rng.uniform(-0.05, 0.05), rng.uniform(-0.4, 0.1))
    reach = rng.uniform(0.13, 0.17)
    distance = np.hypot(x - at[0], y - at[1])
    film += soft(distance - reach, 0.015) * (0.07 - film)
    film += soft(np.abs(distance - reach) - 0.03, 0.018) * (0.85 - film)
    return soft(distance - reach - 0.03, 0.018)


def _markings(x: Array, y: Array, increased: bool, rng: Generator) -> Array:
    """Vessels that fan out from the roots of the lungs; coarse streaks where ``increased``."""
    out = np.hypot(np.abs(x) - 0.14, y - 0.02)
    around = np.arctan2(y - 0.02, np.abs(x) - 0.14)
    spokes = np.cos(rng.uniform(13, 16) * around + 2.5 * smooth_noise(rng, 6) + 9 * out)
    if not increased:
        return 0.07 * soft(0.6 - spokes, 0.4) * np.exp(-((out / 0.3) ** 2))
    cross = np.abs(smooth_noise(rng, 14)) < 0.09
    streaks = np.maximum(soft(0.35 - spokes, 0.3), 0.9 * cross)
    return 0.36 * streaks * np.exp(-((out / 0.75) ** 2))


def _consolidate(
    film: Array, x: Array, y: Array, lung: Array, zone: str, lines: bool, rng: Generator
) -> dict[str, Array]:
    """Whiten a patch of one lung, in place; with dark branching air lines if asked.

    Returns the places of both.
    """
    at_x = rng.uniform(0.42, 0.5)
    at_y = rng.uniform(-0.5, -0.38) if zone == "upper" else rng.uniform(0.12, 0.24)
    distance = np.hypot((x - at_x) / 1.1, y - at_y) - rng.uniform(0.26, 0.32)
    patch = soft(distance + 0.06 * smooth_noise(rng, 10), 0.06) * lung
    film += patch * (0.72 + 0.04 * smooth_noise(rng, 16) - film)
    places = {"opacity": patch}
    if lines:
        root = np.array((at_x - 0.3, at_y + (0.18 if zone == "upper" else -0.18)))
        fork = np.array((at_x - 0.06, at_y + rng.uniform(-0.04, 0.04)))
        tube = np.full(film.shape, 9.0, np.float32)
        for turn in (-0.75, -0.1, 0.6):
            turn += rng.uniform(-0.12, 0.12)
            tip = fork + 0.32 * np.array((np.cos(turn), np.sin(turn)))
            points = np.stack((root, fork, tip)).astype(np.float32)
            tube = np.minimum(tube, line_distance(x, y, points))
        places["bronchogram"] = soft(tube - 0.8 * PIXEL, 0.5 * PIXEL) * patch
        film += places["bronchogram"] * (0.14 - film)
    return places


def _film(film: Array, rng: Generator) -> Array:
    """A marker, a lead, exposure, noise; grey in three channels."""
    if rng.random() < 0.25:
        top, left = rng.integers(2, 6), rng.choice((2, 56))
        film[top : top + 4, left : left + rng.integers(2, 5)] = 0.98
    if rng.random() < 0.15:
        xs = rng.uniform(-0.9, 0.9, 3)
        points = np.stack((xs, (-1.1, rng.uniform(-0.4, 0.4), 1.1)), 1).astype(np.float32)
        lead = soft(line_distance(GRID_X, GRID_Y, points) - 0.4 * PIXEL, 0.5 * PIXEL)
        film += 0.25 * lead
    film = np.clip(film, 0, 1) ** rng.uniform(0.85, 1.2)
    film = 255 * (rng.uniform(0.0, 0.04) + rng.uniform(0.9, 1.0) * film)
    film += 4 * smooth_noise(rng, 4)
    film += rng.uniform(2, 5) * rng.standard_normal(film.shape, dtype=np.float32)
    return np.repeat(to_uint8(film)[..., None], 3, 2)
