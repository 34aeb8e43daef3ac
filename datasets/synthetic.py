"""A small drawn world: lesions and chest films whose visual attributes are known.

Nothing here is a medical image. An image is drawn from a class in two steps: attributes are
sampled given the class, then the image is drawn from the attributes and from nuisance (skin or
exposure, hair, rulers, noise, position, scale, rotation) that knows nothing of the class. Which
attribute goes with which class follows dermatology's ABCD rule (asymmetry, border, colour,
dermoscopic structures) and radiology's signs (opacity, silhouette sign, effusion, cavity, air
bronchogram); no attribute decides, and the best accuracy that they allow is known exactly.
``python -m datasets.contact_sheet`` prints it and draws images to look at.
"""

import csv
import errno
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray as Array
from numpy.random import Generator
from PIL import Image

from core.errors import InputError

from .drawn_chests import chest_places, draw_chest
from .drawn_lesions import draw_lesion, lesion_places


@dataclass(frozen=True)
class Attribute:
    """One thing a person could say about an image.

    ``chances[class]`` holds P(value | class), in the order of ``values``. With ``needs``
    (attribute, value), the chances hold where that attribute has that value; elsewhere this
    attribute has its first value.
    """

    name: str
    values: tuple[str, ...]
    chances: dict[str, tuple[float, ...]]
    needs: tuple[str, str] | None = None


@dataclass(frozen=True)
class World:
    """Classes, how often each is met, and what is seen in their images.

    ``draw`` makes the image; ``places`` says where in it each attribute shows that has a place,
    {attribute: [64, 64] from 0 to 1}, from the same attributes and generator.
    """

    name: str
    prior: dict[str, float]
    attributes: tuple[Attribute, ...]
    draw: Callable[[Mapping[str, str], Generator], Array]
    places: Callable[[Mapping[str, str], Generator], dict[str, Array]]


def sample_attributes(world: World, rng: Generator, classname: str | None = None) -> dict[str, str]:
    """Values by attribute name, drawn given the class, or all values alike for ``None``.

    The second form trains a backbone that can't learn what goes with a disease.
    """
    drawn: dict[str, str] = {}
    for attribute in world.attributes:
        if attribute.needs and drawn[attribute.needs[0]] != attribute.needs[1]:
            drawn[attribute.name] = attribute.values[0]
            continue
        chances = attribute.chances[classname] if classname is not None else None
        drawn[attribute.name] = attribute.values[rng.choice(len(attribute.values), p=chances)]
    return drawn


def picture(
    world: World, seed: int, index: int, classname: str | None = None
) -> tuple[Array, dict[str, str]]:
    """Draw image ``index`` of the series ``seed``: ([64, 64, 3] uint8, its attributes)."""
    rng = np.random.default_rng([seed, index])
    attributes = sample_attributes(world, rng, classname)
    return world.draw(attributes, rng), attributes


def attribute_masks(
    world: World, seed: int, index: int, classname: str | None = None
) -> tuple[dict[str, Array], dict[str, str]]:
    """Draw image ``index`` again: ({attribute: [64, 64] bool}, its attributes).

    A mask is True where its attribute shows at half its strength or more. Symptoms that speak of
    what is absent, or of the whole image, have none.
    """
    rng = np.random.default_rng([seed, index])
    attributes = sample_attributes(world, rng, classname)
    places = world.places(attributes, rng)
    return {name: place >= 0.5 for name, place in places.items()}, attributes


def likelihood(world: World, attributes: Mapping[str, str], classname: str) -> float:
    """P(attributes | class)."""
    chance = 1.0
    for attribute in world.attributes:
        at = attribute.values.index(attributes[attribute.name])
        if attribute.needs and attributes[attribute.needs[0]] != attribute.needs[1]:
            chance *= at == 0
        else:
            chance *= attribute.chances[classname][at]
    return chance


def posterior(world: World, attributes: Mapping[str, str]) -> dict[str, float]:
    """{class: P(class | attributes)}."""
    joint = {c: p * likelihood(world, attributes, c) for c, p in world.prior.items()}
    total = sum(joint.values())
    return {c: p / total for c, p in joint.items()}


def bayes_accuracy(world: World) -> float:
    """The accuracy of the best guess from the attributes: the sum of max_c P(c, attributes)."""
    names = [attribute.name for attribute in world.attributes]
    total = 0.0
    for values in itertools.product(*(attribute.values for attribute in world.attributes)):
        attributes = dict(zip(names, values, strict=True))
        total += max(p * likelihood(world, attributes, c) for c, p in world.prior.items())
    return total


def _chances(first: str, second: str, *values: tuple[float, float]) -> dict[str, tuple[float, ...]]:
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
    places=lesion_places,
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
    places=chest_places,
)

WORLDS = (LESIONS, CHESTS)  # what the embedded CLIPs were trained on


def write_jpeg(path: Path, pixels: Array) -> None:
    """Write [64, 64, 3] pixels with next to no loss, as the releases hold JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, subsampling=0)


def write_png(path: Path, pixels: Array) -> None:
    """Write [64, 64, 3] pixels as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_attributes(
    path: Path, world: World, shown: Iterable[tuple[str, str, Mapping[str, str]]]
) -> None:
    """Write ``shown``, rows of (image's id, class name, attributes), as a table."""
    names = [attribute.name for attribute in world.attributes]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["picture", "class", *names])
        for identity, classname, attributes in shown:
            writer.writerow([identity, classname, *(attributes[name] for name in names)])


def write_once(folder: str | Path, write: Callable[[Path], None]) -> None:
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
