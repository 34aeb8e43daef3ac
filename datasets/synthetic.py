"""A small drawn world: lesions and chest films whose visual attributes are known.

Nothing here is a medical picture. A picture is drawn from a class in two steps: attributes are
sampled given the class, then the picture is drawn from the attributes and from nuisance (skin or
exposure, hair, rulers, noise, position, scale, rotation) that knows nothing of the class. Which
attribute goes with which class follows dermatology's ABCD rule (asymmetry, border, colour,
dermoscopic structures) and radiology's signs (opacity, silhouette sign, effusion, cavity, air
bronchogram); no attribute decides, and the best accuracy that they allow is known exactly.
``python -m datasets.contact_sheet`` prints it and draws pictures to look at.
"""

import csv
import errno
import functools
import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import InputError

SIZE = 64


@dataclass(frozen=True)
class Attribute:
    """One thing a person could say about a picture.

    ``chances[class]`` holds P(value | class), in the order of ``values``. With ``needs``
    (attribute, value), the chances hold where that attribute has that value; elsewhere this
    attribute has its first value.
    """

    name: str
    values: tuple
    chances: dict
    needs: tuple = None


@dataclass(frozen=True)
class World:
    """Classes, how often each is met, and what is seen in their pictures."""

    name: str
    prior: dict
    attributes: tuple
    draw: callable


def sample_attributes(world, rng, classname=None):
    """Values by attribute name, drawn given the class, or all values alike for ``None``.

    The second form trains a backbone that can't learn what goes with a disease.
    """
    drawn = {}
    for attribute in world.attributes:
        if attribute.needs and drawn[attribute.needs[0]] != attribute.needs[1]:
            drawn[attribute.name] = attribute.values[0]
            continue
        chances = attribute.chances[classname] if classname is not None else None
        drawn[attribute.name] = attribute.values[rng.choice(len(attribute.values), p=chances)]
    return drawn


def picture(world, seed, index, classname=None):
    """Draw picture ``index`` of the series ``seed``: ([64, 64, 3] uint8, its attributes)."""
    rng = np.random.default_rng([seed, index])
    attributes = sample_attributes(world, rng, classname)
    return world.draw(attributes, rng), attributes


def likelihood(world, attributes, classname):
    """P(attributes | class)."""
    chance = 1.0
    for attribute in world.attributes:
        at = attribute.values.index(attributes[attribute.name])
        if attribute.needs and attributes[attribute.needs[0]] != attribute.needs[1]:
            chance *= at == 0
        else:
            chance *= attribute.chances[classname][at]
    return chance


def posterior(world, attributes):
    """{class: P(class | attributes)}."""
    joint = {c: p * likelihood(world, attributes, c) for c, p in world.prior.items()}
    total = sum(joint.values())
    return {c: p / total for c, p in joint.items()}


def bayes_accuracy(world):
    """The accuracy of the best guess from the attributes: the sum of max_c P(c, attributes)."""
    names = [attribute.name for attribute in world.attributes]
    total = 0.0
    for values in itertools.product(*(attribute.values for attribute in world.attributes)):
        attributes = dict(zip(names, values, strict=True))
        total += max(p * likelihood(world, attributes, c) for c, p in world.prior.items())
    return total


# Drawing. Arrays are [64, 64] float32, or [64, 64, 3] for colour with values 0 to 255.

_CENTRES = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE * 2 - 1
GRID_X, GRID_Y = np.meshgrid(_CENTRES, _CENTRES)  # -1 to 1, rightwards and downwards
PIXEL = 2 / SIZE


@functools.cache
def _interpolation(cells):
    """[64, cells + 1] weights that stretch cells + 1 knots smoothly over a side."""
    at = (np.arange(SIZE) + 0.5) / SIZE * cells
    left = np.minimum(at.astype(int), cells - 1)
    step = at - left
    step = step * step * (3 - 2 * step)
    weights = np.zeros((SIZE, cells + 1), np.float32)
    weights[np.arange(SIZE), left] = 1 - step
    weights[np.arange(SIZE), left + 1] = step
    return weights


def _smooth_noise(rng, cells):
    """Noise of deviation about 0.5, smooth over 64 / ``cells`` pixels."""
    weights = _interpolation(cells)
    return weights @ rng.standard_normal((cells + 1, cells + 1), dtype=np.float32) @ weights.T


def _soft(distance, width):
    """1 where ``distance`` is negative, 0 where positive, over about ``width`` either side."""
    return 0.5 - 0.5 * np.tanh(distance / width)


def _blend(image, colour, weight):
    """Move ``image`` [64, 64, 3] towards ``colour`` by ``weight`` [64, 64], in place."""
    weight = weight[..., None]
    image += weight * (np.asarray(colour, np.float32) - image)


def _line_distance(x, y, points):
    """Distance to the polyline through ``points`` [n, 2]."""
    start, end = points[:-1], points[1:]
    along = end - start  # [n - 1, 2]
    dx = x[..., None] - start[:, 0]  # [64, 64, n - 1]
    dy = y[..., None] - start[:, 1]
    t = (dx * along[:, 0] + dy * along[:, 1]) / (along**2).sum(1)
    t = np.clip(t, 0, 1)
    squared = (dx - t * along[:, 0]) ** 2 + (dy - t * along[:, 1]) ** 2
    return np.sqrt(squared.min(-1))


def _to_uint8(image):
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


LESION_COLOURS = {"brown": (122, 70, 38), "tan": (186, 134, 82), "black": (66, 54, 52)}
SECOND_COLOURS = {
    "brown": ((44, 30, 30), (178, 62, 58), (214, 170, 118), (206, 196, 196)),
    "tan": ((44, 30, 30), (178, 62, 58), (108, 60, 34), (222, 212, 210)),
    "black": ((178, 62, 58), (204, 154, 98), (206, 196, 196), (128, 74, 40)),
}


def draw_lesion(attributes, rng):
    """A dermoscopy-like picture [64, 64, 3] uint8 of a lesion with these attributes."""
    has = attributes.get
    symmetric = has("symmetry") == "symmetric"
    # Apart, so that another attribute leaves the rest of the picture as it is.
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
    soft = shape.uniform(0.2, 0.3) if has("border") == "blurred" else 0.7 * PIXEL / size
    inside = _soft(outside, soft)

    if has("redness") == "red":
        spread = shape.uniform(0.32, 0.5)
        halo = np.exp(-((np.maximum(outside, 0) / spread) ** 2))
        _blend(image, (224, 70, 70), halo * shape.uniform(0.45, 0.62))

    # Colour and structures are mirrored in a symmetric lesion: folded coordinates draw them twice.
    fold_u, fold_v = (np.abs(u), np.abs(v)) if symmetric else (u, v)
    main = has("colour")
    body = np.empty_like(image)
    body[:] = LESION_COLOURS[main] + inner.normal(0, 5, 3)
    shade = 4.0 * _smooth_noise(inner, 12)
    if not symmetric:  # one side darker than the other
        shade -= inner.uniform(6, 14) * u
    body += shade[..., None]
    if has("colours") == "several":
        _patches(body, fold_u, fold_v, symmetric, SECOND_COLOURS[main], inner)
    if has("network") == "network":
        body *= 1 - inner.uniform(0.42, 0.55) * _mesh(u, v, size, inner)[..., None]
    if has("veil") == "veil":
        where = (0.0, 0.0) if symmetric else inner.uniform(-0.2, 0.2, 2)
        reach = np.hypot(u - where[0], v - where[1]) - inner.uniform(0.45, 0.6)
        reach += 0.05 * _smooth_noise(inner, 6)
        _blend(body, (140, 162, 212), _soft(reach, 0.14) * inner.uniform(0.78, 0.9))
    if has("dots") == "dots":
        _blend(body, (14, 8, 10), 0.95 * _dots(fold_u, fold_v, symmetric, size, inner))
    image += inside[..., None] * (body - image)

    return _dermoscope(image, nuisance)


def _skin(rng):
    light, dark = np.array((240, 206, 188)), np.array((206, 160, 128))
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = light + rng.uniform(0, 1) * (dark - light)
    slope = rng.normal(0, 5, 2)
    image += (slope[0] * GRID_X + slope[1] * GRID_Y + 5 * _smooth_noise(rng, 8))[..., None]
    return image


def _outline(theta, symmetric, jagged, rng):
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
        phase = 0.0 if symmetric else rng.uniform(0, 2 * np.pi)
        wave = np.arcsin(np.cos(teeth * theta + phase)) * (2 / np.pi)  # a zigzag
        depth = rng.uniform(0.14, 0.2)
        uneven = np.cos((2 if symmetric else 3) * theta + 2 * phase)
        radius += depth * (1 + 0.4 * uneven) * wave
    return radius.astype(np.float32)


def _patches(body, u, v, symmetric, colours, rng):
    """Paint two or three patches of other colours."""
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
        _blend(body, colours[colour], 0.92 * _soft(distance, 0.07))


def _mesh(u, v, size, rng):
    """Dark lines around light holes, like the reticular pigment network."""
    period = rng.uniform(5.2, 6.4) * PIXEL / size
    k = 2 * np.pi / (period * 0.866)
    turn = rng.uniform(0, np.pi)
    waves = 0.0
    for third in range(3):
        a = turn + third * np.pi / 3
        waves = waves + np.cos(k * (np.cos(a) * u + np.sin(a) * v))
    return _soft(waves + 0.45, 0.5)


def _dots(u, v, symmetric, size, rng):
    n = int(rng.integers(3, 5)) if symmetric else int(rng.integers(9, 15))
    out = 0.8 * np.sqrt(rng.uniform(0.03, 1, n)).astype(np.float32)
    around = rng.uniform(0, np.pi / 2 if symmetric else 2 * np.pi, n).astype(np.float32)
    squared = (u[..., None] - out * np.cos(around)) ** 2
    squared += (v[..., None] - out * np.sin(around)) ** 2
    radius = rng.uniform(1.2, 1.7) * PIXEL / size
    return _soft(np.sqrt(squared.min(-1)) - radius, 0.4 * PIXEL / size)


def _dermoscope(image, rng):
    """Hair, ruler, dark corners, exposure, noise."""
    if rng.random() < 0.3:
        for _ in range(rng.integers(1, 4)):
            start, end = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2)
            direction = (end - start) / max(np.hypot(*(end - start)), 1e-3)
            start, end = start - 0.6 * direction, end + 0.6 * direction
            bend = rng.uniform(-0.25, 0.25) * np.array((-direction[1], direction[0]))
            points = np.stack((start, (start + end) / 2 + bend, end)).astype(np.float32)
            hair = _soft(_line_distance(GRID_X, GRID_Y, points) - 0.35 * PIXEL, 0.5 * PIXEL)
            _blend(image, (48, 34, 28), 0.75 * hair)
    if rng.random() < 0.12:
        ticks = (np.abs((np.arange(SIZE) + rng.integers(0, 8)) % 8 - 4) < 1) * 1.0
        length = 3 + (np.arange(SIZE) // 8 % 5 == 0) * 3
        ruler = (ticks * (np.arange(SIZE)[:, None] < length)).astype(np.float32)
        ruler = np.rot90(ruler, rng.integers(0, 4))
        _blend(image, (50, 50, 60), 0.8 * ruler)
    if rng.random() < 0.2:
        reach = rng.uniform(1.12, 1.3)
        _blend(image, (16, 12, 12), _soft(reach - np.hypot(GRID_X, GRID_Y), 0.05))
    image *= rng.uniform(0.9, 1.08)
    image += rng.normal(0, 3, 3)
    image += rng.uniform(1.5, 5) * rng.standard_normal(image.shape, dtype=np.float32)
    return _to_uint8(image)


def draw_chest(attributes, rng):
    """A chest-film-like picture [64, 64, 3] uint8, grey, with these attributes."""
    has = attributes.get
    nuisance, signs = rng.spawn(2)  # apart, as for the lesions
    # Position, scale and rotation of the whole chest are nuisance.
    angle, scale = nuisance.normal(0, 0.04), nuisance.uniform(0.92, 1.08)
    shift = nuisance.uniform(-0.06, 0.06, 2)
    x = (np.cos(angle) * (GRID_X - shift[0]) + np.sin(angle) * (GRID_Y - shift[1])) / scale
    y = (np.cos(angle) * (GRID_Y - shift[1]) - np.sin(angle) * (GRID_X - shift[0])) / scale
    side = np.abs(x)
    right = x < 0  # the patient's right is on the left
    hidden = has("borders") == "hidden"
    blur = signs.uniform(0.13, 0.18)
    edge = blur if hidden else 0.025

    # Lungs: two upright ovals, cut by the diaphragm's domes and by the heart.
    wide = nuisance.uniform(0.34, 0.39)
    oval = np.hypot((side - 0.45) / wide, (y + 0.05) / 0.78) - 1
    dome = nuisance.uniform(0.42, 0.5) + 0.08 * ~right + 0.7 * (side - 0.42) ** 2
    dome = dome.astype(np.float32)
    lung = _soft(oval * wide, 0.035) * _soft(y - dome, edge)
    heart_size = nuisance.uniform(0.26, 0.33)
    heart = np.hypot((x - 0.13) / heart_size, (y - 0.28) / (heart_size * 0.95)) - 1
    heart = _soft(heart * heart_size, edge)
    column = _soft(side - 0.13 - 0.05 * _smooth_noise(nuisance, 4), 0.04)

    film = 0.64 + 0.1 * (y > dome) - 0.35 * _soft(1.08 - side - 0.12 * (y + 1), 0.06)
    air = nuisance.uniform(0.16, 0.24)
    film += lung * (air - film)
    # Ribs and collar bones.
    arcs = y + 0.55 * (side - 0.35) ** 2 - 0.28 * side + nuisance.uniform(0, 0.2)
    ribs = _soft(np.abs((arcs * 5) % 1 - 0.5) - 0.13, 0.12)
    film += 0.075 * ribs * (oval < 0.1)
    collar = np.abs(y + 0.74 + 0.18 * (side - 0.3)) - 0.025
    film += 0.1 * _soft(collar, 0.02) * (side > 0.1)
    film += np.maximum(heart, column) * (0.82 - film)

    lungs_only = lung * (1 - np.maximum(heart, column))
    film += lungs_only * _markings(x, y, has("markings") == "increased", signs)
    mirror = nuisance.choice((-1.0, 1.0))
    if has("opacity") == "opaque":
        _consolidate(film, x * mirror, y, lung, has("zone"), has("bronchogram") == "lines", signs)
    if has("effusion") == "fluid":
        # Fluid settles at one base, its top rising along the chest wall.
        fluid_side = -mirror if has("zone") == "lower" else mirror  # never over the opacity
        level = signs.uniform(0.24, 0.36) - 0.75 * np.maximum(side - 0.3, 0) ** 1.5
        fluid = _soft(level - y, 0.03) * (x * fluid_side > 0.1) * _soft(side - 0.84, 0.05)
        film += fluid * (0.84 - film)
    if has("cavity") == "cavity":
        at = (0.45 + signs.uniform(-0.05, 0.05), signs.uniform(-0.4, 0.1))
        reach = signs.uniform(0.13, 0.17)
        distance = np.hypot(x * -mirror - at[0], y - at[1])
        film += _soft(distance - reach, 0.015) * (0.07 - film)
        film += _soft(np.abs(distance - reach) - 0.03, 0.018) * (0.85 - film)

    return _film(film.astype(np.float32), nuisance)


def _markings(x, y, increased, rng):
    """Vessels that fan out from the roots of the lungs; coarse streaks where ``increased``."""
    out = np.hypot(np.abs(x) - 0.14, y - 0.02)
    around = np.arctan2(y - 0.02, np.abs(x) - 0.14)
    spokes = np.cos(rng.uniform(13, 16) * around + 2.5 * _smooth_noise(rng, 6) + 9 * out)
    if not increased:
        return 0.07 * _soft(0.6 - spokes, 0.4) * np.exp(-((out / 0.3) ** 2))
    cross = np.abs(_smooth_noise(rng, 14)) < 0.09
    streaks = np.maximum(_soft(0.35 - spokes, 0.3), 0.9 * cross)
    return 0.36 * streaks * np.exp(-((out / 0.75) ** 2))


def _consolidate(film, x, y, lung, zone, lines, rng):
    """Whiten a patch of one lung, in place; with dark branching air lines if asked."""
    at_x = rng.uniform(0.42, 0.5)
    at_y = rng.uniform(-0.5, -0.38) if zone == "upper" else rng.uniform(0.12, 0.24)
    distance = np.hypot((x - at_x) / 1.1, y - at_y) - rng.uniform(0.26, 0.32)
    patch = _soft(distance + 0.06 * _smooth_noise(rng, 10), 0.06) * lung
    film += patch * (0.72 + 0.04 * _smooth_noise(rng, 16) - film)
    if lines:
        root = np.array((at_x - 0.3, at_y + (0.18 if zone == "upper" else -0.18)))
        fork = np.array((at_x - 0.06, at_y + rng.uniform(-0.04, 0.04)))
        tube = np.full(film.shape, 9.0, np.float32)
        for turn in (-0.75, -0.1, 0.6):
            turn += rng.uniform(-0.12, 0.12)
            tip = fork + 0.32 * np.array((np.cos(turn), np.sin(turn)))
            points = np.stack((root, fork, tip)).astype(np.float32)
            tube = np.minimum(tube, _line_distance(x, y, points))
        film += _soft(tube - 0.8 * PIXEL, 0.5 * PIXEL) * patch * (0.14 - film)


def _film(film, rng):
    """A marker, a lead, exposure, noise; grey in three channels."""
    if rng.random() < 0.25:
        top, left = rng.integers(2, 6), rng.choice((2, 56))
        film[top : top + 4, left : left + rng.integers(2, 5)] = 0.98
    if rng.random() < 0.15:
        xs = rng.uniform(-0.9, 0.9, 3)
        points = np.stack((xs, (-1.1, rng.uniform(-0.4, 0.4), 1.1)), 1).astype(np.float32)
        lead = _soft(_line_distance(GRID_X, GRID_Y, points) - 0.4 * PIXEL, 0.5 * PIXEL)
        film += 0.25 * lead
    film = np.clip(film, 0, 1) ** rng.uniform(0.85, 1.2)
    film = 255 * (rng.uniform(0.0, 0.04) + rng.uniform(0.9, 1.0) * film)
    film += 4 * _smooth_noise(rng, 4)
    film += rng.uniform(2, 5) * rng.standard_normal(film.shape, dtype=np.float32)
    return np.repeat(_to_uint8(film)[..., None], 3, 2)


def _chances(first, second, *values):
    """{class: chances} from pairs (chance in first class, chance in second), value by value."""
    return {first: tuple(v[0] for v in values), second: tuple(v[1] for v in values)}


_lesion = functools.partial(_chances, "melanoma", "nevus")
_chest = functools.partial(_chances, "pneumonia", "normal lung")

LESIONS = World(
    name="SynthDerm",
    prior={"melanoma": 252 / 827, "nevus": 575 / 827},
    attributes=(
        Attribute("symmetry", ("symmetric", "asymmetric"), _lesion((0.24, 0.80), (0.76, 0.20))),
        Attribute(
            "border",
            ("clear", "blurred", "jagged"),
            _lesion((0.24, 0.72), (0.28, 0.20), (0.48, 0.08)),
        ),
        Attribute("colours", ("one", "several"), _lesion((0.28, 0.82), (0.72, 0.18))),
        Attribute(
            "colour", ("brown", "tan", "black"), _lesion((0.42, 0.48), (0.18, 0.40), (0.40, 0.12))
        ),
        Attribute("dots", ("none", "dots"), _lesion((0.45, 0.76), (0.55, 0.24))),
        # Redness beyond the border is a warning sign, but a scratched mole reddens as well.
        Attribute("redness", ("none", "red"), _lesion((0.65, 0.78), (0.35, 0.22))),
        Attribute("network", ("none", "network"), _lesion((0.64, 0.42), (0.36, 0.58))),
        # A blue-white veil is a second colour, so it appears only among several.
        Attribute(
            "veil", ("none", "veil"), _lesion((0.50, 0.88), (0.50, 0.12)), ("colours", "several")
        ),
    ),
    draw=draw_lesion,
)

CHESTS = World(
    name="SynthChest",
    prior={"pneumonia": 3883 / 5232, "normal lung": 1349 / 5232},
    attributes=(
        Attribute("opacity", ("none", "opaque"), _chest((0.22, 0.92), (0.78, 0.08))),
        Attribute(
            "zone", ("lower", "upper"), _chest((0.65, 0.5), (0.35, 0.5)), ("opacity", "opaque")
        ),
        Attribute(
            "bronchogram",
            ("none", "lines"),
            _chest((0.5, 0.8), (0.5, 0.2)),
            ("opacity", "opaque"),
        ),
        Attribute("borders", ("sharp", "hidden"), _chest((0.48, 0.88), (0.52, 0.12))),
        Attribute("effusion", ("none", "fluid"), _chest((0.68, 0.95), (0.32, 0.05))),
        Attribute("cavity", ("none", "cavity"), _chest((0.86, 0.97), (0.14, 0.03))),
        Attribute("markings", ("normal", "increased"), _chest((0.40, 0.80), (0.60, 0.20))),
    ),
    draw=draw_chest,
)

WORLDS = (LESIONS, CHESTS)


def write_jpeg(path, pixels):
    """Write [64, 64, 3] pixels with next to no loss, as the releases hold JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def write_attributes(path, world, shown):
    """Write ``shown``, rows of (picture's id, class name, attributes), as a table."""
    names = [attribute.name for attribute in world.attributes]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["picture", "class", *names])
        for identity, classname, attributes in shown:
            writer.writerow([identity, classname, *(attributes[name] for name in names)])


def write_once(folder, write):
    """Fill ``folder`` by ``write(temporary folder)`` unless it is there; it is whole or absent.

    Several processes may call at once: the first to finish stands.
    """
    folder = Path(folder)
    if folder.exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".drawing-") as temporary:
            drawn = Path(temporary, folder.name)
            drawn.mkdir()
            write(drawn)
            try:
                drawn.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # another place would not help
        raise InputError(
            f"{folder}: cannot be drawn there ({error}); give a DATASET.ROOT that can be written to"
        ) from None
