"""SynthSkin: drawn lesions of six classes in the layout of PAD-UFES-20."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
from dassl.data.datasets import DATASET_REGISTRY
from numpy.random import Generator

from . import synthetic
from .image_folder import ImageFolder

SEED = 9  # of the images; the dataset is the same for everybody
PARTS = 3  # folders of images
COUNTS = {
    "actinic keratosis": 160,
    "basal cell carcinoma": 180,
    "melanoma": 100,
    "nevus": 140,
    "squamous cell carcinoma": 120,
    "seborrheic keratosis": 140,
}
CODES = {  # the release's names
    "actinic keratosis": "ACK",
    "basal cell carcinoma": "BCC",
    "melanoma": "MEL",
    "nevus": "NEV",
    "squamous cell carcinoma": "SCC",
    "seborrheic keratosis": "SEK",
}
# P(value | class) of the attributes of the drawn lesions, in the order of their values.
CHANCES = {
    # A red, faded patch of one colour.
    "actinic keratosis": {
        "symmetry": (0.35, 0.65),
        "border": (0.08, 0.84, 0.08),
        "colours": (0.88, 0.12),
        "colour": (0.15, 0.80, 0.05),
        "dots": (0.94, 0.06),
        "redness": (0.10, 0.90),
        "network": (0.95, 0.05),
        "veil": (0.95, 0.05),
    },
    # A sharply bordered growth of several colours with a blue veil.
    "basal cell carcinoma": {
        "symmetry": (0.75, 0.25),
        "border": (0.80, 0.15, 0.05),
        "colours": (0.10, 0.90),
        "colour": (0.30, 0.60, 0.10),
        "dots": (0.75, 0.25),
        "redness": (0.75, 0.25),
        "network": (0.95, 0.05),
        "veil": (0.15, 0.85),
    },
    # The ABCD rule: asymmetric, jagged, of several colours, black, with dots.
    "melanoma": {
        "symmetry": (0.12, 0.88),
        "border": (0.08, 0.17, 0.75),
        "colours": (0.12, 0.88),
        "colour": (0.25, 0.07, 0.68),
        "dots": (0.20, 0.80),
        "redness": (0.80, 0.20),
        "network": (0.60, 0.40),
        "veil": (0.65, 0.35),
    },
    # An even, symmetric mole with a pigment network.
    "nevus": {
        "symmetry": (0.90, 0.10),
        "border": (0.80, 0.15, 0.05),
        "colours": (0.92, 0.08),
        "colour": (0.75, 0.15, 0.10),
        "dots": (0.85, 0.15),
        "redness": (0.92, 0.08),
        "network": (0.10, 0.90),
        "veil": (0.97, 0.03),
    },
    # An irregular growth of several colours in reddened skin.
    "squamous cell carcinoma": {
        "symmetry": (0.20, 0.80),
        "border": (0.10, 0.20, 0.70),
        "colours": (0.25, 0.75),
        "colour": (0.20, 0.70, 0.10),
        "dots": (0.85, 0.15),
        "redness": (0.15, 0.85),
        "network": (0.95, 0.05),
        "veil": (0.93, 0.07),
    },
    # A sharply bordered, dark growth of one colour with many small dots.
    "seborrheic keratosis": {
        "symmetry": (0.75, 0.25),
        "border": (0.85, 0.10, 0.05),
        "colours": (0.85, 0.15),
        "colour": (0.35, 0.05, 0.60),
        "dots": (0.08, 0.92),
        "redness": (0.88, 0.12),
        "network": (0.92, 0.08),
        "veil": (0.95, 0.05),
    },
}

# The same lesions as SynthDerm's in six kinds. The embedded CLIPs were trained on the attributes,
# not on which go together here.
SKIN = synthetic.World(
    name="SynthSkin",
    prior={name: n / sum(COUNTS.values()) for name, n in COUNTS.items()},
    attributes=tuple(
        replace(attribute, chances={name: CHANCES[name][attribute.name] for name in COUNTS})
        for attribute in synthetic.LESIONS.attributes
    ),
    draw=synthetic.LESIONS.draw,
    places=synthetic.LESIONS.places,
)

COLUMNS = (
    "patient_id lesion_id smoke drink background_father background_mother age pesticide gender "
    "skin_cancer_history cancer_history has_piped_water has_sewage_system fitspatrick region "
    "diameter_1 diameter_2 diagnostic itch grew hurt changed bleed elevation img_id biopsed"
).split()


@DATASET_REGISTRY.register()
class SynthSkin(ImageFolder):
    """840 drawn lesions of six kinds: synthetic, of no medical meaning.

    Drawn once below ROOT, in the layout of PAD-UFES-20 (doi 10.17632/zr7vgbcyr2): a table with a
    line for each image, and no split. ``configs/datasets/synthskin.yaml`` says how to read it, and
    would do so for the release. ``attributes.csv`` beside it holds what each image shows. A patient
    has one to three images, each of another lesion: they are no more alike than any others.
    """

    dataset_dir = "synthskin"
    source = "give another DATASET.ROOT, or delete the folder and it is drawn again"
    drawn_from = (SKIN, SEED)  # row i of attributes.csv is image i of this series

    def prepare(self) -> None:
        synthetic.write_once(self.dataset_dir, write_release)


def write_release(folder: Path) -> None:
    """Draw every image and write the table and the true attributes below ``folder``."""
    rng = np.random.default_rng(SEED)
    classnames = [name for name, n in COUNTS.items() for _ in range(n)]
    rng.shuffle(classnames)
    rows, shown = [], []
    patients = _patients(len(classnames), rng)
    for i, (classname, patient) in enumerate(zip(classnames, patients, strict=True)):
        pixels, attributes = synthetic.picture(SKIN, SEED, i, classname)
        name = f"PAT_{patient}_{i + 1}_{int(rng.integers(1000))}.png"
        identity = f"images/imgs_part_{1 + i * PARTS // len(classnames)}/{name}"
        synthetic.write_png(folder / identity, pixels)
        known = {
            "patient_id": f"PAT_{patient}",
            "lesion_id": i + 1,
            "diagnostic": CODES[classname],
            "img_id": name,
            "biopsed": False,
        }
        rows.append(dict.fromkeys(COLUMNS, "") | known)
        shown.append((identity, classname, attributes))
    with open(folder / "metadata.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    synthetic.write_attributes(folder / "attributes.csv", SKIN, shown)


def _patients(n: int, rng: Generator) -> list[int]:
    """The patient of each of ``n`` images, one to three in a row."""
    return np.repeat(np.arange(1, n + 1), rng.integers(1, 4, n))[:n].tolist()
